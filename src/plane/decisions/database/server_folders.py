"""Candidate folders for the files of a server that runs as another user, and orphaned copies of its programs.

`plane.database.embedded` tries the candidates in order and uses the first that works for that user.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "COPY_PREFIX",
    "HOME_PREFIX",
    "UNFINISHED",
    "data_candidates",
    "orphaned_copies",
    "program_candidates",
    "socket_candidates",
]

HOME_PREFIX = "plane-postgres-"
COPY_PREFIX = "plane-postgresql-"
# In the name of a copy that is being created or removed.
UNFINISHED = ".unfinished-"


def program_candidates(temporary: str | None) -> tuple[str, ...]:
    """Return folders for copies of programs, 40 MB each. ``temporary``: the environment's TMPDIR."""
    # Copies can be recreated, so a folder for temporary files comes first. /run is small, but always exists.
    return _distinct("/var/tmp", temporary, "/tmp", "/var/lib", "/run")  # noqa: S108 - the owner is checked


def data_candidates(temporary: str | None) -> tuple[str, ...]:
    """Return folders for databases."""
    # Many systems delete old files from /var/tmp, and empty /tmp and /run at boot.
    return _distinct("/var/lib", "/var/tmp", temporary, "/tmp", "/run")  # noqa: S108 - the owner is checked


def socket_candidates(temporary: str | None) -> tuple[str, ...]:
    """Return folders for sockets; their paths must be short."""
    return _distinct("/tmp", temporary, "/run", "/var/tmp")  # noqa: S108 - the owner is checked


def orphaned_copies(names: Iterable[str], current: str) -> list[str]:
    """Return names of copies that ``current`` replaces: of other versions, and unfinished ones of any version."""
    return sorted(name for name in names if name.startswith(COPY_PREFIX) and name != current)


def _distinct(*folders: str | None) -> tuple[str, ...]:
    # A relative TMPDIR would be another folder for the server, whose working directory differs.
    return tuple(dict.fromkeys(folder for folder in folders if folder and folder.startswith("/")))
