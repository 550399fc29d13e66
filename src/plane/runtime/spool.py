"""A file that a process appends its output to, and that is emptied from the front while it does.

A file and not a pipe, so that the process neither blocks nor dies while no drone reads. What has been read is given
back to the file system by punching a hole, which can lose nothing that is appended meanwhile. Used by `log_keeper`.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["Spool", "open_for_output"]

READ_BYTES = 128 * 1024
# An unfinished line this long is handed out as it is.
LINE_LIMIT_BYTES = 2_000
# fallocate(2): FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE.
PUNCH_HOLE = 0x01 | 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def open_for_output(path: Path, owner: int | None = None) -> int:
    """A descriptor to give to the process; ``owner`` is its user, which may open it again as /dev/stdout."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if owner is not None:
        os.fchown(descriptor, owner, -1)
    return descriptor


class Spool:
    """The reader's side.

    Args:
        path: the file; it must be there.
        backlog_limit_bytes: what is unread beyond that is dropped, so that a flood fills no disk.
    """

    def __init__(self, path: Path, backlog_limit_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._backlog_limit_bytes = backlog_limit_bytes
        # What a former reader has read is a hole, up to the bytes of its last block, which are zeros.
        self._resumed = True
        try:
            self._position = os.lseek(self._descriptor, 0, os.SEEK_DATA)
        except OSError:
            self._position = os.fstat(self._descriptor).st_size
        self._rest = b""

    def read(self, *, to_the_end: bool = False) -> list[bytes]:
        """Whole lines that have been appended, without their ends; with ``to_the_end`` an unfinished last one too."""
        size = os.fstat(self._descriptor).st_size
        # The process owns the file as much as we do, and may have cut it.
        self._position = min(self._position, size)
        lines = []
        if size - self._position > self._backlog_limit_bytes:
            dropped = size - self._position - READ_BYTES
            self._position += dropped
            lines.append(f"[{dropped} bytes of output came too fast and were dropped]".encode())
        if size > self._position:
            data = os.pread(self._descriptor, READ_BYTES, self._position)
            self._position += len(data)
            has_holes = _libc.fallocate(self._descriptor, PUNCH_HOLE, 0, self._position) == 0
            if not has_holes and not self.has_more:
                # Start over, now that all is read.
                os.ftruncate(self._descriptor, 0)
                self._position = 0
            if self._resumed:
                data = data.lstrip(b"\0")
            self._resumed = False
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines += whole
        if self._rest and (to_the_end or len(self._rest) >= LINE_LIMIT_BYTES):
            lines.append(self._rest)
            self._rest = b""
        return lines

    @property
    def has_more(self) -> bool:
        """Whether there is something that `read` has not seen."""
        return os.fstat(self._descriptor).st_size > self._position

    def close(self) -> None:
        """Stop reading."""
        os.close(self._descriptor)
