"""Create and remove the private HOME of each backend that is not isolated.

An isolated backend has `PRIVATE_HOME`, in a file system that ends with the backend.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from plane.runtime.process.backend_user import UserIds

__all__ = ["PRIVATE_HOME", "PRIVATE_RUNTIME_FOLDER", "home_variables", "make_home", "remove_home"]

# Below one of the private folders of each isolated backend.
PRIVATE_HOME = "/run/home"
# XDG_RUNTIME_DIR, for sockets and the like. The specification requires that it exists, unlike the other folders.
RUNTIME_FOLDER = ".runtime"
PRIVATE_RUNTIME_FOLDER = f"{PRIVATE_HOME}/{RUNTIME_FOLDER}"
# Every user may enter it; the drone's own folders may not allow that.
SHARED_FOLDER = "/tmp"  # noqa: S108


def make_home(folder: Path, backend_id: str, user: UserIds | None) -> Path:
    """Create the home of a backend and return its path.

    Args:
        folder: the drone's folder of the backend, which holds the home or a link to it.
        user: the owner of the home; None: the drone's user.

    Raises:
        OSError: it cannot be created.
    """
    remove_home(folder)
    home = folder / "home" if user is None else Path(SHARED_FOLDER) / f"plane-home-{backend_id}"
    if user is not None:
        # The link comes first, so that `remove_home` finds everything that is created.
        (folder / "home").symlink_to(home)
    home.mkdir(mode=0o700)
    folders = (home / "tmp", home / RUNTIME_FOLDER)
    for created in folders:
        created.mkdir(mode=0o700)
    if user is not None:
        for created in (*folders, home):
            os.chown(created, *user, follow_symlinks=False)
    return home


def home_variables(home: str | Path, executable: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the home and its folders for temporary and other files.

    The folders of the XDG Base Directory Specification are below the HOME of the executable's variables, if it has one.
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
    """Remove the home of a backend whose processes have ended, given the drone's folder of the backend."""
    home = folder / "home"
    if home.is_symlink():
        # If the backend has replaced its home by a link, rmtree removes nothing.
        shutil.rmtree(home.readlink(), ignore_errors=True)
        with suppress(OSError):
            home.unlink()
    elif home.exists():
        shutil.rmtree(home, ignore_errors=True)
