"""Which folder below the mount base does a backend get? Refuses whatever is no plain relative path (A11 of page 7).

Only names are looked at here; that no symbolic link leads out is seen to by `plane.runtime.mounts`.
"""

from __future__ import annotations

from plane.protocol.errors import PlaneError

__all__ = ["MountRefused", "mount_path"]

# Of a file name, and of a path, in bytes (Linux: NAME_MAX, and well below PATH_MAX).
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 1024
# Of nested folders that one request may have made.
DEPTH_LIMIT = 16


class MountRefused(PlaneError):
    """The path may not be mounted; the text says why, and what may be."""


def mount_path(mount: bool | str | None, key_name: str | None) -> tuple[str, ...] | None:
    """The parts of the path below the mount base; None: no mount is asked for.

    Args:
        mount: true for a folder of the key's name, or a relative path.
        key_name: of the backend's key.

    Raises:
        MountRefused
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
    """A file name that can only mean an entry of the folder that it is looked up in."""
    if not name:
        raise MountRefused(f"{what} is empty, absolute, or has an empty part; give a relative path like 'docs/one'")
    if name in (".", ".."):
        raise MountRefused(f"{what} leads elsewhere by {name!r}; give a relative path like 'docs/one'")
    if "/" in name:
        raise MountRefused(f"{what} has a '/', so it is no name of a folder; give a relative path as the mount instead")
    if "\0" in name:
        raise MountRefused(f"{what} has a NUL character, which no file name can have")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise MountRefused(f"{what} is not valid Unicode") from None
    if length > NAME_LIMIT_BYTES:
        raise MountRefused(f"{what} has a part of more than {NAME_LIMIT_BYTES} bytes")
    return name
