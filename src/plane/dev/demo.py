"""Where the demo is: ``examples/`` of a checkout, or the copy that is installed with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import plane
from plane.decisions.folder_reader import FolderMode, needed_user

__all__ = ["as_reader", "demo_command", "visible_folders"]


def as_reader() -> tuple[str, ...]:
    """Return the start of an argv that runs Python as a user who can read this package; empty: root can.

    Root's isolated processes cannot pass other users' private folders, as with `sudo` in a checkout below a home.
    """
    if os.geteuid() != 0:
        return ()
    entries = (path.stat() for path in reversed(Path(plane.__file__).resolve().parents))
    user = needed_user(FolderMode(entry.st_uid, entry.st_gid, entry.st_mode) for entry in entries)
    if user is None:
        return ()
    return ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")


def demo_command() -> tuple[str, ...]:
    """The argv that runs the shared counter and text pad."""
    package = Path(plane.__file__).parent
    places = (package / "examples", package.parents[1] / "examples")
    script = next(path for place in places if (path := place / "counter_pad.py").is_file())
    return (*as_reader(), sys.executable, str(script))


def visible_folders() -> tuple[Path, ...]:
    """What isolated processes must be able to read to run the demo, wherever it is: Python and this package."""
    return tuple({Path(sys.prefix), Path(sys.base_prefix), Path(plane.__file__).parents[2]})
