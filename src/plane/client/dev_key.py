"""The API key of a `plane dev` on this machine: where it is kept, and how programs of the same user find it.

The data folder has the key (``api-key``), the URL (``control-url``) and the lock that a running cluster holds. A note
per port below ``~/.local/state/plane/dev`` names the folder, so that the key is found from any directory; a ``.plane``
in the current directory, or one above it, needs no note. `plane.dev.access_key` writes these files.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["DEFAULT_FOLDER", "KEY_FILE", "LOCK_FILE", "URL_FILE", "notes_folder", "running_dev_key"]

DEFAULT_FOLDER = Path(".plane")
KEY_FILE = "api-key"
URL_FILE = "control-url"
LOCK_FILE = "lock"

_LOOPBACK = frozenset({"localhost", "127.0.0.1"})


def notes_folder() -> Path | None:
    """Return the folder of the notes of this user; None for a user without a home."""
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
    if (notes := notes_folder()) is not None:
        try:
            yield Path((notes / str(port)).read_text().strip())
        except (OSError, UnicodeError):
            return


def _is_running(folder: Path) -> bool:
    """Whether a cluster holds the folder. The key is not given to another program that has got the port since."""
    with (folder / LOCK_FILE).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
