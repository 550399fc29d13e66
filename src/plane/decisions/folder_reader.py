"""As which user can an isolated process of root's read a folder? Pure.

Isolation takes root's capabilities away (`plane.runtime.launch`), among them the one to pass other users' folders.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FolderMode", "needed_user"]

ROOT = 0


class FolderMode(NamedTuple):
    """Owner, group and mode of a folder, as of stat(2)."""

    uid: int
    gid: int
    mode: int


def needed_user(folders: Iterable[FolderMode]) -> FolderMode | None:
    """Return the first folder that root may not pass without capabilities, whose owner may; None: root may pass all."""
    return next((folder for folder in folders if not _lets_root_pass(folder)), None)


def _lets_root_pass(folder: FolderMode) -> bool:
    if folder.uid == ROOT:
        return bool(folder.mode & stat.S_IXUSR)
    return bool(folder.mode & (stat.S_IXGRP if folder.gid == ROOT else stat.S_IXOTH))
