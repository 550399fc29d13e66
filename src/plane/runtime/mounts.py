"""Create and open a backend's folder below the mount base, so that no symbolic link leads out of it.

`plane.decisions.backends.mount_path` decides the path. Each part is opened relative to its parent folder without
following links. A link that stays inside the base is refused too, because it could be changed at any time.

The base may be a network file system that hangs. Then the start fails, and nothing else waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from plane.decisions.backends.mount_path import MountRefused, mount_path
from plane.protocol.keys import AcquiredKey
from plane.runtime.base import BackendFailed
from plane.runtime.file_calls import TIMEOUT_S, FileCalls, FileSystemHangs

__all__ = ["Mounts", "real_path"]

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

T = TypeVar("T")

log = structlog.get_logger("plane.runtime")


class Mounts:
    """The folders below the mount base of one drone.

    Args:
        base: None: the drone mounts nothing, whatever executables request.
    """

    def __init__(self, base: Path | None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = base
        self._file_calls = FileCalls(timeout_s=timeout_s)

    async def open(self, mount: bool | str | None, key: AcquiredKey | None, owner: int | None = None) -> int | None:
        """Return a descriptor (O_PATH) of the folder to mount, or None if nothing is mounted.

        A missing folder is created with mode 0755.

        Args:
            mount: the mount of the executable.
            key: the key of the backend.
            owner: user id that owns the created folders; None: the drone's user.

        Raises:
            BackendFailed: a part of the path is a symbolic link, is not a folder, or cannot be created; or the file
                system does not respond.
        """
        try:
            parts = mount_path(mount, None if key is None else key.key.name)
            if parts is None:
                return None
            if self._base is None:
                log.warning("mount ignored: the drone has no --mount-base", mount=mount)
                return None
            return await self._in_time(partial(_open_folder, self._base, parts, owner), os.close)
        except MountRefused as error:
            raise BackendFailed(str(error)) from error

    async def check(self, pid: int, folder: int) -> None:
        """Check that a container has the opened folder and not another one that has taken its place meanwhile.

        Args:
            pid: of the container's first process.

        Raises:
            BackendFailed: it has another folder, or the file system does not respond.
        """
        try:
            await self._in_time(partial(_check_mounted, pid, folder))
        except MountRefused as error:
            raise BackendFailed(str(error)) from error

    async def _in_time(self, function: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
        try:
            return await self._file_calls.run("--mount-base", function, discard)
        except FileSystemHangs as error:
            raise MountRefused(f"--mount-base: {self._base} {error}; is its file system available?") from None


def _open_folder(base: Path, parts: Sequence[str], owner: int | None) -> int:
    try:
        # The operator's own base may be a link.
        folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MountRefused(f"--mount-base: {base} cannot be opened: {error.strerror}") from error
    for number, part in enumerate(parts):
        try:
            child = _make_or_open(folder, part, owner)
        except OSError as error:
            shown = "/".join(parts[: number + 1])
            raise MountRefused(
                f"executable.mount: {shown!r} below the drone's mount base is a symbolic link, is not a "
                f"folder, or cannot be created: {error.strerror}"
            ) from error
        finally:
            os.close(folder)
        folder = child
    return folder


def _make_or_open(folder: int, part: str, owner: int | None) -> int:
    try:
        os.mkdir(part, 0o755, dir_fd=folder)
    except FileExistsError:
        return os.open(part, _FLAGS, dir_fd=folder)
    created = os.open(part, _FLAGS, dir_fd=folder)
    if owner is not None:
        os.chown(f"/proc/self/fd/{created}", owner, -1)
    return created


def _check_mounted(pid: int, folder: int) -> None:
    try:
        mounted = os.stat(f"/proc/{pid}/root/plane-data")  # noqa: PTH116 - beside fstat
    except OSError:
        # The engine runs on another machine or in another namespace, or the process has ended.
        return
    opened = os.fstat(folder)
    if (mounted.st_dev, mounted.st_ino) != (opened.st_dev, opened.st_ino):
        raise MountRefused("executable.mount: the folder was replaced while it was being mounted; connect again")


def real_path(folder: int) -> str:
    """Return the path of an open folder, without symbolic links."""
    return os.fspath(Path(f"/proc/self/fd/{folder}").readlink())
