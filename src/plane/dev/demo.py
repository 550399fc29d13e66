"""Where the demo is: ``examples/`` of a checkout, or the copy that is installed with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import plane

__all__ = ["demo_command"]


def demo_command() -> tuple[str, ...]:
    """The argv that runs the shared counter and text pad."""
    package = Path(plane.__file__).parent
    places = (package / "examples", package.parents[1] / "examples")
    script = next(path for place in places if (path := place / "counter_pad.py").is_file())
    return (sys.executable, str(script))
