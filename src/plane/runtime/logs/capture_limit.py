"""Bounds what a backend's output takes of the disk while nobody reads it. Nothing but the standard library here.

Used by `output_capture`, and by the process that watches over a drone: while the drone is dead or stopped, nobody else
would.
"""

from __future__ import annotations

import ctypes
import os
import stat

__all__ = ["bound", "punch"]

# fallocate(2): FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE.
PUNCH_HOLE = 0x01 | 0x02
# A multiple of every file system's block, so that the block at the end of a hole is freed as well.
ALIGNMENT = 64 * 1024
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(descriptor: int, end: int) -> bool:
    """Give the file's first ``end`` bytes back to the file system; False: it cannot do that."""
    return bool(_libc.fallocate(descriptor, PUNCH_HOLE, 0, end) == 0)


def bound(path: str | os.PathLike[str], limit_bytes: int) -> int:
    """Give back all but the last part of a spool that takes more than ``limit_bytes``; returns how much was given back.

    Half of the limit is kept. Safe while its process appends and its reader reads: the reader sees a hole. Does nothing
    to a file that is not there, or is not a regular file with one name: a backend of the same user may have put
    another one in its place. Never raises `OSError`. Blocks where the disk does.
    """
    try:
        # Neither a link's target nor the other end of a FIFO is waited for or touched.
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
        punch(descriptor, end)
    if os.fstat(descriptor).st_blocks * BLOCK_BYTES > limit_bytes + ALIGNMENT:
        # No holes here, or blocks behind the end of the file, or a flood: then all of it. Appending goes on at 0.
        os.ftruncate(descriptor, 0)
    return max(0, allocated - os.fstat(descriptor).st_blocks * BLOCK_BYTES)
