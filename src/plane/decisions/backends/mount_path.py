"""Decide which folder below the mount base a backend gets. Refuses everything but plain relative paths.

Pure, so only names are checked here; `plane.runtime.mounts` ensures that no symbolic link leads out of the base.
"""

from __future__ import annotations

from plane.protocol.errors import PlaneError

__all__ = ["MountRefused", "mount_path"]

# Limits of a file name and of a path: NAME_MAX of Linux, and well below PATH_MAX.
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 1024
# How many nested folders one request may create.
DEPTH_LIMIT = 16


class MountRefused(PlaneError):
    """The path may not be mounted; the message says why, and which paths may."""


def mount_path(mount: bool | str | None, key_name: str | None) -> tuple[str, ...] | None:
    """Return the parts of the path below the mount base; None if no mount is requested.

    Args:
        mount: true for a folder with the name of the key, or a relative path.
        key_name: the name of the backend's key; None: it has no key.

    Raises:
        MountRefused: the path is not a plain relative path.
    """
    if mount is None or mount is False:
        return None
    if mount is True:
        if key_name is None:
            raise MountRefused("executable.mount: true mounts the key's folder, but there is no key")
        return (_part(key_name, f"executable.mount: true mounts the key's folder, but the key's name {key_name!r}"),)
    what = f"executable.mount: the path {mount!r}"
    if len(mount.encode(errors="replace")) > PATH_LIMIT_BYTES:
        raise MountRefused(f"executable.mount: the path is longer than {PATH_LIMIT_BYTES} bytes")
    parts = tuple(_part(part, what) for part in mount.removesuffix("/").split("/"))
    if len(parts) > DEPTH_LIMIT:
        raise MountRefused(f"{what} has more than {DEPTH_LIMIT} parts")
    return parts


def _part(name: str, what: str) -> str:
    """Return a name that can only mean an entry of the folder in which it is looked up.

    Raises:
        MountRefused: the name could mean something else.
    """
    if not name:
        raise MountRefused(f"{what} is empty, absolute, or has an empty part; give a relative path like 'docs/one'")
    if name in (".", ".."):
        raise MountRefused(f"{what} leaves the mount base by {name!r}; give a relative path like 'docs/one'")
    if "/" in name:
        raise MountRefused(
            f"{what} has a '/', so it cannot be the name of a folder; give a relative path as the mount instead"
        )
    if "\0" in name:
        raise MountRefused(f"{what} has a NUL character, which no file name can have")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise MountRefused(f"{what} is not valid Unicode") from None
    if length > NAME_LIMIT_BYTES:
        raise MountRefused(f"{what} has a part of more than {NAME_LIMIT_BYTES} bytes")
    return name
