"""The data folder of `plane dev`, which one process at a time may use.

The lock is the kernel's, so a killed process leaves no stale lock.
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

__all__ = ["lock_folder"]


@contextmanager
def lock_folder(path: Path) -> Iterator[Path]:
    """Create the folder, and lock it for this process while the block runs.

    Raises:
        ConfigurationError: the folder cannot be created, or another process holds it; the message names the process.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Not truncated when opened: it may name the process that holds the lock.
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
