"""How long may a request stand still, and what becomes of it then? A slow peer is waited for, one that stopped is not.

`plane.proxy.data_plane.client_connection` asks. What is waited for is that a body gets on. A backend that takes its
time to answer
is none of it: long polls and event streams are quiet.
"""

from __future__ import annotations

import enum

__all__ = ["Standstill", "standstill"]


class Standstill(enum.Enum):
    """What to do with a request of which no byte got on in time."""

    CUT = enum.auto()
    """Nothing can be said any more."""

    CLIENT_IS_SLOW = 408
    BACKEND_IS_SLOW = 504


def standstill(
    *,
    with_backend: bool,
    answer_begun: bool,
    client_ended: bool,
    backend_reads: bool,
    response_head_begun: bool = False,
) -> Standstill:
    """Who is to blame: the client for what it does not send, or the backend for what it does not read.

    ``response_head_begun``: the backend has sent a part of a response head; the rest is missing.
    """
    if not with_backend or answer_begun or client_ended:
        return Standstill.CUT
    return Standstill.CLIENT_IS_SLOW if backend_reads and not response_head_begun else Standstill.BACKEND_IS_SLOW
