"""How many files may this process have open, and those that it starts?

A drone, a proxy and a controller need a few per backend and connection, so they raise their limit to what the system
allows. A backend gets the one that they were given themselves: programs that use select() fail beyond it, and some
close every descriptor up to the limit before they start.
"""

from __future__ import annotations

import resource

__all__ = ["given_open_files_limit", "raise_open_files_limit"]

_GIVEN, _ = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_open_files_limit() -> int:
    """Let this process open as many files as the system allows it; returns that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def given_open_files_limit() -> int | None:
    """The limit that this process began with, if it is not what it has now; for what it starts."""
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if now == _GIVEN else _GIVEN
