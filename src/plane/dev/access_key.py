"""The API key of `plane dev`: generated at the first start, stored in the data folder, found by the user's programs.

`plane.client.dev_key` defines the files and reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from plane.client.controller_key import read_key_file
from plane.client.dev_key import KEY_FILE, URL_FILE, pointer_folder
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError
from plane.random_ids import random_token

__all__ = ["generate_key", "installation_id", "load_key", "publish_key"]

log = structlog.get_logger("plane.dev")


def generate_key() -> str:
    """Return a new API key."""
    return f"pk_{random_token()}"


def load_key(folder: Path) -> str:
    """Return the key of the data folder, which is generated if there is none. Only the owner can read the file.

    Raises:
        ConfigurationError: the file cannot be written or read.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _replace(path, generate_key())
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(f"--data-dir: cannot write {path}: {error_reason(error)}") from error
    return read_key_file(path, "--data-dir")


def installation_id(key: str) -> str:
    """Return an id of the data folder with this key, which it shares with no other folder and which is no secret."""
    return hashlib.sha256(b"installation " + key.encode()).hexdigest()[:16]


@contextmanager
def publish_key(folder: Path, control_url: str, port: int) -> Iterator[None]:
    """Let programs of this user find the key while the block runs.

    Raises:
        ConfigurationError: the data folder cannot be written.
    """
    try:
        _replace(folder / URL_FILE, control_url)
    except OSError as error:
        raise ConfigurationError(f"--data-dir: cannot write {folder / URL_FILE}: {error_reason(error)}") from error
    pointer = _write_pointer(folder, port)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / URL_FILE).unlink()
        if pointer is not None:
            with contextlib.suppress(OSError, UnicodeError):
                # Another cluster may have the port now.
                if pointer.read_text().strip() == str(folder):
                    pointer.unlink()


def _write_pointer(folder: Path, port: int) -> Path | None:
    """Write the pointer file; return None for a user without a home of their own, for example with `sudo -E`."""
    pointers = pointer_folder()
    if pointers is None:
        return None
    try:
        existing = next(path for path in (pointers, *pointers.parents) if path.exists())
        if existing.stat().st_uid != os.geteuid():
            return None
        pointers.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(pointers / str(port), str(folder))
    except OSError as error:
        log.info(
            "api key not published; it is found only in the data folder's parent",
            folder=str(pointers),
            error=error_reason(error),
        )
        return None
    return pointers / str(port)


def _replace(path: Path, line: str) -> None:
    """Write a file atomically, readable only by its owner."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{line}\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
