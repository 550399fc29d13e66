"""Where the demo is: ``examples/`` of a checkout, or the copy that is installed with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import plane
from plane.runtime.process.backend_user import backend_user
from plane.runtime.process.visible_files import first_inaccessible_folder

__all__ = ["demo_command", "demo_user", "visible_folders"]


def demo_user(*, isolated: bool) -> str | None:
    """Return the id of the user that backends must have to run the demo; None: the one that they have anyway.

    Isolation shows them Python and this package wherever these are. Without it they must be able to pass the folders on
    the way, and root's checkout may be below a home.
    """
    user = backend_user(None)
    if user is None:
        return None
    for folder in visible_folders():
        # Something in it, so that the folder itself counts.
        closed = first_inaccessible_folder(folder.resolve() / "bin", user, folder.resolve() if isolated else None)
        if closed is not None:
            return str(closed.stat().st_uid)
    return None


def demo_command() -> tuple[str, ...]:
    """The argv that runs the shared counter and text pad."""
    package = Path(plane.__file__).parent
    places = (package / "examples", package.parents[1] / "examples")
    script = next(path for place in places if (path := place / "counter_pad.py").is_file())
    return (sys.executable, str(script))


def visible_folders() -> tuple[Path, ...]:
    """What isolated processes must be able to read to run the demo, wherever it is: Python and this package."""
    return tuple({Path(sys.prefix), Path(sys.base_prefix), Path(plane.__file__).parents[2]})
