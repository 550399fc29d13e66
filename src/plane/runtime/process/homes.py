"""A private folder for each backend that is not isolated, as its HOME: made with it, removed with it.

An isolated backend has `PRIVATE_HOME`, in a file system that ends with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from plane.runtime.process.backend_user import UserIds

__all__ = ["PRIVATE_HOME", "PRIVATE_RUNTIME_FOLDER", "home_variables", "make_home", "remove_home"]

# Below one of the folders that each isolated backend has of its own.
PRIVATE_HOME = "/run/home"
# For sockets and the like, which the specification wants to be there: other folders are made by who needs them.
RUNTIME_FOLDER = ".runtime"
PRIVATE_RUNTIME_FOLDER = f"{PRIVATE_HOME}/{RUNTIME_FOLDER}"
# Where every user may enter, as the drone's own folders need not allow.
SHARED_FOLDER = "/tmp"  # noqa: S108


def make_home(folder: Path, backend_id: str, user: UserIds | None) -> Path:
    """Make the home of a backend; returns its path.

    Args:
        folder: the drone's of the backend; it keeps the home, or a link to it.
        user: whose the home is; None: the drone's own.

    Raises:
        OSError
    """
    remove_home(folder)
    home = folder / "home" if user is None else Path(SHARED_FOLDER) / f"plane-home-{backend_id}"
    if user is not None:
        # Noted first, so that whatever is made is found again.
        (folder / "home").symlink_to(home)
    home.mkdir(mode=0o700)
    folders = (home / "tmp", home / RUNTIME_FOLDER)
    for made in folders:
        made.mkdir(mode=0o700)
    if user is not None:
        for made in (*folders, home):
            os.chown(made, *user, follow_symlinks=False)
    return home


def home_variables(home: str | Path, executable: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a home, and its folders for temporary and other files of its user.

    Those of the XDG Base Directory Specification lie in the home that the executable's own variables name, if they do.
    """
    shared = home == PRIVATE_HOME
    base = executable.get("HOME", str(home))
    return {
        "HOME": str(home),
        "TMPDIR": SHARED_FOLDER if shared else str(Path(home) / "tmp"),
        "XDG_RUNTIME_DIR": PRIVATE_RUNTIME_FOLDER if shared else f"{home}/{RUNTIME_FOLDER}",
        "XDG_CONFIG_HOME": f"{base}/.config",
        "XDG_CACHE_HOME": f"{base}/.cache",
        "XDG_DATA_HOME": f"{base}/.local/share",
        "XDG_STATE_HOME": f"{base}/.local/state",
    }


def remove_home(folder: Path) -> None:
    """Remove the home that `make_home` noted in the drone's folder of a backend, whose processes have ended."""
    home = folder / "home"
    if home.is_symlink():
        # The backend could put a link in its place: then rmtree removes nothing.
        shutil.rmtree(home.readlink(), ignore_errors=True)
        with suppress(OSError):
            home.unlink()
    elif home.exists():
        shutil.rmtree(home, ignore_errors=True)
