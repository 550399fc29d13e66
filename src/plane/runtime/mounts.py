"""Makes and opens a backend's folder below the mount base, so that no symbolic link leads out of it (A11 of page 7).

Which path that is, is decided by `plane.decisions.backends.mount_path`. Every part is opened in the folder before it
without following links; a link inside the base that stays inside is refused too, since it could be changed at any time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from plane.decisions.backends.mount_path import MountRefused, mount_path
from plane.protocol.keys import AcquiredKey
from plane.runtime.base import BackendFailed

__all__ = ["open_mount", "real_path"]

_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

log = structlog.get_logger("plane.runtime")


def open_mount(
    base: Path | None, mount: bool | str | None, key: AcquiredKey | None, owner: int | None = None
) -> int | None:
    """A descriptor (O_PATH) of the folder to mount, which is made (0755) if it is not there; None: nothing is mounted.

    Args:
        base: the drone's mount base; None: none is done, whatever is asked for.
        mount: what the executable asks for.
        key: of the backend.
        owner: user id that gets what is made.

    Raises:
        BackendFailed: the path may not be mounted: a part is a link, or no folder, or cannot be made.
    """
    try:
        parts = mount_path(mount, None if key is None else key.key.name)
        if parts is not None and base is not None:
            return _opened_folder(base, parts, owner)
    except MountRefused as error:
        raise BackendFailed(str(error)) from error
    if parts is not None:
        log.warning("mount asked for and not done: the drone has no --mount-base", mount=mount)
    return None


def _opened_folder(base: Path, parts: Sequence[str], owner: int | None) -> int:
    try:
        # The operator's own base may be a link.
        folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MountRefused(f"--mount-base: {base} cannot be opened: {error.strerror}") from error
    for number, part in enumerate(parts):
        try:
            inner = _made_or_opened(folder, part, owner)
        except OSError as error:
            shown = "/".join(parts[: number + 1])
            raise MountRefused(
                f"executable.mount: {shown!r} below the drone's mount base is a symbolic link or no folder, "
                f"or cannot be made: {error.strerror}"
            ) from error
        finally:
            os.close(folder)
        folder = inner
    return folder


def _made_or_opened(folder: int, part: str, owner: int | None) -> int:
    try:
        os.mkdir(part, 0o755, dir_fd=folder)
    except FileExistsError:
        return os.open(part, _FLAGS, dir_fd=folder)
    made = os.open(part, _FLAGS, dir_fd=folder)
    if owner is not None:
        os.chown(f"/proc/self/fd/{made}", owner, -1)
    return made


def real_path(folder: int) -> str:
    """Where an opened folder is, without any link in the path."""
    return os.fspath(Path(f"/proc/self/fd/{folder}").readlink())
