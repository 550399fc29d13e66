"""Finds the API key of a `plane dev` that the same user runs on this machine.

The data folder has the key (``api-key``), the URL (``control-url``) and the lock that a running cluster holds. A
pointer file per port below ``~/.local/state/plane/dev`` names the folder, so that the key is found from any directory.
A ``.plane`` in the current directory, or in one above it, needs no pointer. `plane.dev.access_key` writes these files.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["DEFAULT_FOLDER", "KEY_FILE", "LOCK_FILE", "URL_FILE", "pointer_folder", "running_dev_key"]

DEFAULT_FOLDER = Path(".plane")
KEY_FILE = "api-key"
URL_FILE = "control-url"
LOCK_FILE = "lock"

_LOOPBACK = frozenset({"localhost", "127.0.0.1"})


def pointer_folder() -> Path | None:
    """Return the folder of this user's pointer files; None for a user without a home."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return Path(state) / "plane" / "dev"


def running_dev_key(base: str) -> str | None:
    """Return the key of the `plane dev` whose control API is at ``base``, if this user runs one."""
    port = _loopback_port(base)
    if port is None:
        return None
    for folder in _folders(port):
        try:
            if _loopback_port((folder / URL_FILE).read_text().strip()) == port and _is_running(folder):
                return (folder / KEY_FILE).read_text().strip() or None
        except (OSError, UnicodeError):
            continue
    return None


def _loopback_port(base: str) -> int | None:
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        return None
    return port or 80 if parts.scheme == "http" and parts.hostname in _LOOPBACK else None


def _folders(port: int) -> Iterator[Path]:
    try:
        here = Path.cwd()
    except OSError:
        here = None
    if here is not None:
        yield from (above / DEFAULT_FOLDER for above in (here, *here.parents))
    if (pointers := pointer_folder()) is not None:
        try:
            yield Path((pointers / str(port)).read_text().strip())
        except (OSError, UnicodeError):
            return


def _is_running(folder: Path) -> bool:
    """Return whether a cluster holds the folder: another program may have the port now, and must not get the key."""
    with (folder / LOCK_FILE).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
