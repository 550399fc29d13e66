"""Create and open a backend's folder below the mount base, so that no symbolic link leads out of it.

`plane.decisions.backends.mount_path` decides the path. Each part is opened relative to its parent folder without
following links. A link that stays inside the base is refused too, because it could be changed at any time.

The base may be a network file system that hangs. Then the start fails, and nothing else waits for it: a drone that does
not renew its leases loses all of its backends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from plane.decisions.backends.mount_path import MountRefused, mount_path
from plane.protocol.keys import AcquiredKey
from plane.runtime.base import BackendFailed

__all__ = ["Mounts", "real_path"]

# A file system that takes longer hangs. Far less than a lease, so that the start ends with its own message.
TIMEOUT_S = 10.0
# Each folder that a hanging file system does not open holds a thread until it does.
HANGING_LIMIT = 20

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

log = structlog.get_logger("plane.runtime")


class Mounts:
    """The folders below the mount base of one drone.

    Args:
        base: None: the drone mounts nothing, whatever executables request.
    """

    def __init__(self, base: Path | None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = base
        self._timeout_s = timeout_s
        # Threads that wait for the file system, although nothing waits for them any more.
        self._hanging = 0

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
            return await self._open_in_time(self._base, parts, owner)
        except MountRefused as error:
            raise BackendFailed(str(error)) from error

    async def _open_in_time(self, base: Path, parts: Sequence[str], owner: int | None) -> int:
        if self._hanging >= HANGING_LIMIT:
            raise MountRefused(f"--mount-base: {base} does not respond")
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[int] = loop.create_future()

        def deliver(descriptor: int, error: BaseException | None) -> None:
            if opened.done():
                self._hanging -= 1
                if error is None:
                    os.close(descriptor)
            elif error is None:
                opened.set_result(descriptor)
            else:
                opened.set_exception(error)

        def work() -> None:
            descriptor, failure = -1, None
            try:
                descriptor = _open_folder(base, parts, owner)
            except BaseException as error:
                failure = error
            # The loop may have been closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, descriptor, failure)

        # Not in a pool: the program would wait for the end of the pool's threads. And others would wait for a thread.
        threading.Thread(target=work, name="mount", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(opened)
        except BaseException as error:
            if not opened.done():
                opened.cancel()
                self._hanging += 1
            elif opened.exception() is None:
                # Opened in the same moment.
                os.close(opened.result())
            if not isinstance(error, TimeoutError):
                raise
            raise MountRefused(
                f"--mount-base: {base} has not responded within {self._timeout_s:g} s; is its file system available?"
            ) from None


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


def real_path(folder: int) -> str:
    """Return the path of an open folder, without symbolic links."""
    return os.fspath(Path(f"/proc/self/fd/{folder}").readlink())
