"""Imports structlog without rich and pygments, which it imports if it can.

That takes an eighth of the start of a program, and only colored tracebacks need them. `plane.cli.logs` uses the plain
ones, since the colored ones have the values of variables. `plane.cli` imports structlog from here, before it imports a
module that uses structlog.
"""

from __future__ import annotations

import sys

__all__ = ["structlog"]

_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # An import of it fails, as if it were not installed.
try:
    import structlog
finally:
    if _rich is None:
        del sys.modules["rich"]
    else:
        sys.modules["rich"] = _rich
