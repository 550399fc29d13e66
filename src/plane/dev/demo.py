"""Where the demo is: ``examples/`` of a checkout, or the copy that is installed with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import plane

__all__ = ["demo_command", "visible_folders"]


def demo_command() -> tuple[str, ...]:
    """The argv that runs the shared counter and text pad."""
    package = Path(plane.__file__).parent
    places = (package / "examples", package.parents[1] / "examples")
    script = next(path for place in places if (path := place / "counter_pad.py").is_file())
    return (sys.executable, str(script))


def visible_folders() -> tuple[Path, ...]:
    """What isolated processes must be able to read to run the demo, wherever it is: Python and this package."""
    return tuple({Path(sys.prefix), Path(sys.base_prefix), Path(plane.__file__).parents[2]})
