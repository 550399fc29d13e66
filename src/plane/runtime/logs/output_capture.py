"""A file that a process appends its output to, and that is emptied from the front while it does.

A file and not a pipe, so that the process neither blocks nor dies while no drone reads. What has been read is given
back to the file system by punching a hole, which can lose nothing that is appended meanwhile. Used by `collector`.
"""

from __future__ import annotations

import os
from pathlib import Path

from plane.runtime.logs.capture_limit import punch

__all__ = ["OutputCapture", "open_for_output"]

READ_BYTES = 128 * 1024
# An unfinished line this long is handed out as it is.
LINE_LIMIT_BYTES = 2_000


def open_for_output(path: Path, owner: int | None = None) -> int:
    """A descriptor to give to the process; ``owner`` is its user, which may open it again as /dev/stdout."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if owner is not None:
        os.fchown(descriptor, owner, -1)
    return descriptor


class OutputCapture:
    """The reader's side.

    Args:
        path: the file; it must be there.
        backlog_limit_bytes: what is unread beyond that is dropped, so that a flood fills no disk.
    """

    def __init__(self, path: Path, backlog_limit_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._backlog_limit_bytes = backlog_limit_bytes
        # What was read or dropped is a hole, up to the bytes of its last block, which are zeros.
        self._behind_hole = True
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
            if not punch(self._descriptor, self._position) and not self.has_more:
                # Start over, now that all is read.
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
        """Where data or a hole begins at or behind the position; ``size`` if there is none.

        What was not read in time is a hole: `capture_limit` makes one while no drone reads.
        """
        try:
            return min(size, os.lseek(self._descriptor, position, what))
        except OSError:
            return size

    @property
    def has_more(self) -> bool:
        """Whether there is something that `read` has not seen."""
        return os.fstat(self._descriptor).st_size > self._position

    def close(self) -> None:
        """Stop reading."""
        os.close(self._descriptor)
