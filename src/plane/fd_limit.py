"""The limit of open files (RLIMIT_NOFILE) of this process, and of the processes that it starts.

A drone, a proxy and a controller need a few files per backend and connection, so they raise their limit to what the
system allows. A backend gets the limit that the drone inherited: programs that use select() fail beyond 1,024 files,
and some programs close every descriptor up to the limit before they start.
"""

from __future__ import annotations

import resource

__all__ = ["inherited_fd_limit", "raise_fd_limit"]

_INHERITED, _ = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_fd_limit() -> int:
    """Raise the limit to what the system allows, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def inherited_fd_limit() -> int | None:
    """Return the limit that this process began with, or None if that is its present one."""
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if now == _INHERITED else _INHERITED
