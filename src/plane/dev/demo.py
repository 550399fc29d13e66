"""Locates the demo: ``examples/`` of a checkout, or the copy that is installed with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import plane
from plane.runtime.process.backend_user import backend_user
from plane.runtime.process.visible_files import first_inaccessible_folder

__all__ = ["demo_command", "demo_user", "visible_folders"]


def demo_user(*, isolated: bool) -> str | None:
    """Return the id of the user that must run the demo's backends; None: the default user.

    Isolated processes see Python and this package wherever these are installed. Without isolation the user must be able
    to enter all parent folders, and root's checkout may be below a home folder.
    """
    user = backend_user(None)
    if user is None:
        return None
    for folder in visible_folders():
        # A path inside it, so that the folder itself is checked too.
        closed = first_inaccessible_folder(folder.resolve() / "bin", user, folder.resolve() if isolated else None)
        if closed is not None:
            return str(closed.stat().st_uid)
    return None


def demo_command() -> tuple[str, ...]:
    """Return the argv of the demo, a shared counter and text pad."""
    package = Path(plane.__file__).parent
    places = (package / "examples", package.parents[1] / "examples")
    script = next(path for place in places if (path := place / "counter_pad.py").is_file())
    return (sys.executable, str(script))


def visible_folders() -> tuple[Path, ...]:
    """Return the folders that isolated processes must be able to read for the demo: Python and this package."""
    return tuple({Path(sys.prefix), Path(sys.base_prefix), Path(plane.__file__).parents[2]})
