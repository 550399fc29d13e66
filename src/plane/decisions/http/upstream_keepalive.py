"""For how long may a free connection to a backend be used again? Servers close theirs, perhaps as a request arrives.

A repeatable request is then sent again. Another one, such as a POST, must not be (RFC 9110, section 9.2.2): its client
gets a 502. So it uses a free connection only within the timeout that the backend has announced, or for a shorter time
than servers wait that announce nothing. `response_head` reads the announcement, and `plane.proxy.data_plane.upstream`
applies it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MOST_S", "announced_timeout_s", "repeatable_reuse_s", "unrepeatable_reuse_s"]

# An upper limit, independent of the announced one: a free connection costs both sides a file.
MOST_S: Final = 15.0
# Node.js, uvicorn, Hypercorn and Apache close after 5 s.
USUAL_S: Final = 4.0
# The shortest usual timeout that is not announced is Gunicorn's, 2 s.
SHORTEST_USUAL_S: Final = 1.0
# For the time that a request is in transit.
MARGIN_S: Final = 1.0

# The last parameter of that name counts; the value may be in quotes, as every parameter's.
_TIMEOUT: Final = re.compile(rb'(?i:(?:^|[,;])[ \t]*timeout[ \t]*=[ \t]*"?([0-9]{1,9})"?[ \t]*(?=[,;]|\Z))')


def announced_timeout_s(keep_alive: bytes) -> float | None:
    """Return the ``timeout`` of a `Keep-Alive` field in seconds, None if it has none that can be read."""
    found = _TIMEOUT.findall(keep_alive)
    return float(found[-1]) if found else None


def repeatable_reuse_s(announced_s: float | None) -> float:
    """Return for how long, in seconds, a free connection may be used by a request that can be repeated."""
    return USUAL_S if announced_s is None else min(MOST_S, _with_margin(announced_s))


def unrepeatable_reuse_s(announced_s: float | None) -> float:
    """Return the same for a request that cannot be repeated."""
    return SHORTEST_USUAL_S if announced_s is None else min(MOST_S, _with_margin(announced_s))


def _with_margin(announced_s: float) -> float:
    return max(announced_s - MARGIN_S, announced_s / 2)
