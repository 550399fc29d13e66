"""A file that a backend's process appends its output to, and that is emptied from the front while it does.

A file and not a pipe: the process neither blocks nor dies while no drone reads. Bytes that have been read are returned
to the file system by punching a hole, which loses nothing that is appended meanwhile.

`plane.runtime.logs.collector` reads captures. The drone's watchdog bounds them while the drone does not read, so this
file imports only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

__all__ = ["LINE_LIMIT_BYTES", "READ_BYTES", "OutputCapture", "bound", "open_for_output"]

READ_BYTES = 128 * 1024
# An unfinished line of this length is returned as it is. A longer one is stored as several.
LINE_LIMIT_BYTES = 2_000
# fallocate(2): FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE.
PUNCH_HOLE = 0x01 | 0x02
# A multiple of every file system's block size, so that the block at the end of a hole is freed as well.
ALIGNMENT = 64 * 1024
# The unit of st_blocks, whatever the block size of the file system is.
BLOCK_BYTES = 512

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def open_for_output(path: Path, owner: int | None = None) -> int:
    """Return a descriptor for the process to write to.

    Args:
        owner: user id of the process, which may open the file again as /dev/stdout; None: the drone's user.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if owner is not None:
        os.fchown(descriptor, owner, -1)
    return descriptor


class OutputCapture:
    """The reader's side.

    Args:
        path: the file, which must exist.
        backlog_limit_bytes: unread output beyond this limit is dropped, so that a flood does not fill the disk.
    """

    def __init__(self, path: Path, backlog_limit_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._backlog_limit_bytes = backlog_limit_bytes
        # Output that was read or dropped is a hole, except for zeros up to the end of its last block.
        self._behind_hole = True
        try:
            self._position = os.lseek(self._descriptor, 0, os.SEEK_DATA)
        except OSError:
            self._position = os.fstat(self._descriptor).st_size
        self._rest = b""

    def read(self, *, to_the_end: bool = False) -> list[bytes]:
        """Return complete lines that have been appended, without line ends.

        Args:
            to_the_end: whether to return an unfinished last line too.
        """
        size = os.fstat(self._descriptor).st_size
        # The process owns the file too, and may have truncated it.
        self._position = min(self._position, size)
        data_at = size - READ_BYTES if size - self._position > self._backlog_limit_bytes else self._position
        data_at = self._next(data_at, os.SEEK_DATA, size)
        lines = []
        if data_at > self._position:
            lines += [self._rest] if self._rest else []
            lines.append(f"[{data_at - self._position} bytes of output came too fast and were dropped]".encode())
            self._rest = b""
            self._position = data_at
            self._behind_hole = True
        if size > self._position:
            length = min(READ_BYTES, self._next(self._position, os.SEEK_HOLE, size) - self._position)
            data = os.pread(self._descriptor, length, self._position)
            self._position += len(data)
            if not _punch(self._descriptor, self._position) and not self.has_more:
                # All is read: start again at the beginning of the file.
                os.ftruncate(self._descriptor, 0)
                self._position = 0
            if self._behind_hole:
                data = data.lstrip(b"\0")
            self._behind_hole = False
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines += whole
        if self._rest and (to_the_end or len(self._rest) >= LINE_LIMIT_BYTES):
            lines.append(self._rest)
            self._rest = b""
        return lines

    def _next(self, position: int, what: int, size: int) -> int:
        """Return where data or a hole begins at or after the position; ``size`` if there is none.

        Unread output may have become a hole: `bound` punches one while no drone reads.
        """
        try:
            return min(size, os.lseek(self._descriptor, position, what))
        except OSError:
            return size

    @property
    def has_more(self) -> bool:
        """Whether there is output that `read` has not returned."""
        # Four times a second for each backend, and fstat takes three times as long.
        return os.lseek(self._descriptor, 0, os.SEEK_END) > self._position

    def close(self) -> None:
        """Stop reading."""
        os.close(self._descriptor)


def bound(path: str | os.PathLike[str], limit_bytes: int) -> int:
    """Shorten a capture that takes more than ``limit_bytes`` of the disk. Return how many bytes were freed.

    The last half of the limit is kept. Safe while the process appends and a reader reads, who sees a hole. Does nothing
    to a file that is missing, or is not a regular file with one name: a backend of the same user may have replaced it.
    Never raises `OSError`. Blocks if the disk does.
    """
    try:
        # Neither follows a symbolic link nor waits for the other end of a FIFO.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return _bound(descriptor, limit_bytes)
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def _bound(descriptor: int, limit_bytes: int) -> int:
    before = os.fstat(descriptor)
    allocated = before.st_blocks * BLOCK_BYTES
    if not stat.S_ISREG(before.st_mode) or before.st_nlink != 1 or allocated <= limit_bytes:
        return 0
    end = (before.st_size - limit_bytes // 2) // ALIGNMENT * ALIGNMENT
    if end > 0:
        _punch(descriptor, end)
    if os.fstat(descriptor).st_blocks * BLOCK_BYTES > limit_bytes + ALIGNMENT:
        # The file system has no holes, or blocks lie behind the end of the file, or output comes too fast: drop all.
        # Appending continues at 0.
        os.ftruncate(descriptor, 0)
    return max(0, allocated - os.fstat(descriptor).st_blocks * BLOCK_BYTES)


def _punch(descriptor: int, end: int) -> bool:
    """Return the first ``end`` bytes to the file system. Return False if it does not support holes."""
    return bool(_libc.fallocate(descriptor, PUNCH_HOLE, 0, end) == 0)
