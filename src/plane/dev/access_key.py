"""The API key of `plane dev`: drawn at the first start, kept in the data folder, found by programs of the same user.

`plane.client.dev_key` says where the files are and reads them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from plane.client.controller_key import read_key_file
from plane.client.dev_key import KEY_FILE, URL_FILE, notes_folder
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError
from plane.random_ids import random_token

__all__ = ["announced", "kept_key", "new_key"]

log = structlog.get_logger("plane.dev")


def new_key() -> str:
    """Return a new API key."""
    return f"pk_{random_token()}"


def kept_key(folder: Path) -> str:
    """Return the key of the data folder, which is drawn if there is none. Only the folder's owner can read the file.

    Raises:
        ConfigurationError: the file cannot be written or read.
    """
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _replace(path, new_key())
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(f"--data-dir: cannot write {path}: {error_reason(error)}") from error
    return read_key_file(path, "--data-dir")


@contextmanager
def announced(folder: Path, control_url: str, port: int) -> Iterator[None]:
    """Let programs of this user find the key while the block runs.

    Raises:
        ConfigurationError: the data folder cannot be written.
    """
    try:
        _replace(folder / URL_FILE, control_url)
    except OSError as error:
        raise ConfigurationError(f"--data-dir: cannot write {folder / URL_FILE}: {error_reason(error)}") from error
    note = _note(folder, port)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / URL_FILE).unlink()
        if note is not None:
            with contextlib.suppress(OSError, UnicodeError):
                # Another cluster may have got the port since.
                if note.read_text().strip() == str(folder):
                    note.unlink()


def _note(folder: Path, port: int) -> Path | None:
    """Write the note that names the folder; None where this user has no home of their own, as with `sudo -E`."""
    notes = notes_folder()
    if notes is None:
        return None
    try:
        existing = next(path for path in (notes, *notes.parents) if path.exists())
        if existing.stat().st_uid != os.geteuid():
            return None
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(notes / str(port), str(folder))
    except OSError as error:
        log.info("API key is found from the data folder's parent only", folder=str(notes), error=error_reason(error))
        return None
    return notes / str(port)


def _replace(path: Path, line: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{line}\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
