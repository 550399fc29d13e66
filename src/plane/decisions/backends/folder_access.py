"""Decide whether file modes let a user pass folders and execute a file. Pure.

The user has no capabilities. The modes restrict root too, see `plane.runtime.process.launch`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FolderMode", "first_inaccessible", "may_execute"]


class FolderMode(NamedTuple):
    """Owner, group and mode of a file or folder; see stat(2)."""

    uid: int
    gid: int
    mode: int


def first_inaccessible(folders: Iterable[FolderMode], uid: int, gid: int) -> int | None:
    """Return the index of the first folder that the user may not enter; None if the user may enter all."""
    return next((index for index, folder in enumerate(folders) if not may_execute(folder, uid, gid)), None)


def may_execute(entry: FolderMode, uid: int, gid: int) -> bool:
    """Return whether the mode lets the user enter a folder or execute a file. The first matching class decides."""
    if entry.uid == uid:
        return bool(entry.mode & stat.S_IXUSR)
    if entry.gid == gid:
        return bool(entry.mode & stat.S_IXGRP)
    return bool(entry.mode & stat.S_IXOTH)
