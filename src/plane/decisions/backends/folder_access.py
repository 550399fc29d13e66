"""Which folder on the way to a file does not let a user pass? Pure.

A user without capabilities is meant: root too must be allowed by the mode, see `plane.runtime.process.launch`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FolderMode", "first_inaccessible", "may_execute"]


class FolderMode(NamedTuple):
    """Owner, group and mode of a file or folder, as of stat(2)."""

    uid: int
    gid: int
    mode: int


def first_inaccessible(folders: Iterable[FolderMode], uid: int, gid: int) -> int | None:
    """Return the index of the first folder that does not let the user pass; None: it may pass all."""
    return next((index for index, folder in enumerate(folders) if not may_execute(folder, uid, gid)), None)


def may_execute(entry: FolderMode, uid: int, gid: int) -> bool:
    """Return whether the mode lets the user pass a folder, or execute a file. The first class that fits decides."""
    if entry.uid == uid:
        return bool(entry.mode & stat.S_IXUSR)
    if entry.gid == gid:
        return bool(entry.mode & stat.S_IXGRP)
    return bool(entry.mode & stat.S_IXOTH)
