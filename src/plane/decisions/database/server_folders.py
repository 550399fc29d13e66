"""Where may a server that runs as another user have its files, and which copies of its programs are leftovers? Pure.

`plane.database` tries the candidates in order and takes the first that works for that user.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "COPY_PREFIX",
    "HOME_PREFIX",
    "UNFINISHED",
    "data_candidates",
    "leftover_copies",
    "program_candidates",
    "socket_candidates",
]

HOME_PREFIX = "plane-postgres-"
COPY_PREFIX = "plane-postgresql-"
# Behind the name of a copy that is being made or removed.
UNFINISHED = ".unfinished-"


def program_candidates(temporary: str | None) -> tuple[str, ...]:
    """Folders that may hold copies of programs, 40 MB each. ``temporary``: the environment's TMPDIR."""
    # Copies are remade at will, so the place for what may be deleted comes first. /run is small, but is always there.
    return _distinct("/var/tmp", temporary, "/tmp", "/var/lib", "/run")  # noqa: S108 - the owner is checked


def data_candidates(temporary: str | None) -> tuple[str, ...]:
    """Folders that may hold databases."""
    # Many systems delete old files from /var/tmp and empty /tmp and /run at each start of the machine.
    return _distinct("/var/lib", "/var/tmp", temporary, "/tmp", "/run")  # noqa: S108 - the owner is checked


def socket_candidates(temporary: str | None) -> tuple[str, ...]:
    """Folders that may hold sockets; their path must be short."""
    return _distinct("/tmp", temporary, "/run", "/var/tmp")  # noqa: S108 - the owner is checked


def leftover_copies(names: Iterable[str], current: str) -> list[str]:
    """Names of copies that ``current`` replaces: of other versions, and unfinished ones of any version."""
    return sorted(name for name in names if name.startswith(COPY_PREFIX) and name != current)


def _distinct(*folders: str | None) -> tuple[str, ...]:
    # A relative TMPDIR would mean another folder for the server, which runs in another working directory.
    return tuple(dict.fromkeys(folder for folder in folders if folder and folder.startswith("/")))
