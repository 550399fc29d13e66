"""What becomes of a request when no byte of it was transferred within the timeout?

The timeout counts only while body bytes could be transferred and are not. Waiting for a response does not count: long
polls and event streams are quiet. Called by `plane.decisions.http.exchange`.
"""

from __future__ import annotations

import enum

__all__ = ["StallAction", "stall_action"]


class StallAction(enum.Enum):
    """What to do with a request that stalls: close the connection, or respond with a status."""

    CUT = enum.auto()
    """No response can be sent any more."""

    CLIENT_IS_SLOW = 408
    BACKEND_IS_SLOW = 504


def stall_action(
    *,
    with_backend: bool,
    response_begun: bool,
    client_ended: bool,
    backend_reads: bool,
    response_head_begun: bool = False,
) -> StallAction:
    """Blame the client for what it does not send, or the backend for what it does not read or send.

    ``response_head_begun``: the backend has sent a part of a response head, and the rest is missing.
    """
    if not with_backend or response_begun or client_ended:
        return StallAction.CUT
    return StallAction.CLIENT_IS_SLOW if backend_reads and not response_head_begun else StallAction.BACKEND_IS_SLOW
