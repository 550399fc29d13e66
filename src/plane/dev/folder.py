"""The data folder of `plane dev`: made, and held by one process at a time.

The lock is the kernel's, so a killed process leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plane.client.dev_key import LOCK_FILE
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["held_folder"]


@contextmanager
def held_folder(path: Path) -> Iterator[Path]:
    """The folder, for this process alone while the block runs.

    Raises:
        ConfigurationError: it cannot be made, or another process holds it (which one is said).
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Not truncated on opening: it may name the process that holds the lock.
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--data-dir: cannot use {path}: {error_reason(error)}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise ConfigurationError(
                f"{path} is in use by another `plane dev` (process {holder}); "
                "stop that one, or choose another folder with --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield path
    finally:
        os.close(descriptor)
