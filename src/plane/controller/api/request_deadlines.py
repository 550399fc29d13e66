"""Closes connections to the controller that do not send a complete request head within ten seconds.

The number of such connections is limited: `plane.decisions.http.unproven_connections` decides which one is closed.
`connect_fast_path` and `http_connection` report to it.
"""

from __future__ import annotations

import asyncio

import structlog

from plane.decisions.http.unproven_connections import UnprovenConnections
from plane.throttled_log import ThrottledWarning

__all__ = ["RequestDeadlines"]

log = structlog.get_logger("plane.controller")


class RequestDeadlines:
    """The connections of one controller that have not sent a complete request head.

    Args:
        limit: their maximum number.
        timeout_s: from the opening of the connection, or from the first byte of a later request, to the end of the
            head.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connections: UnprovenConnections[asyncio.Transport] = UnprovenConnections(limit)
        self._timers: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        self._too_many = ThrottledWarning(
            log, "too many connections without a request; closing the oldest", limit=limit
        )

    def start(self, transport: asyncio.Transport) -> None:
        """Start the deadline of a connection, unless it has one already."""
        if transport in self._timers:
            return
        peer = transport.get_extra_info("peername")
        source = peer[0] if isinstance(peer, tuple) else ""
        self._timers[transport] = asyncio.get_running_loop().call_later(self._timeout_s, self._close, transport)
        if (oldest := self._connections.add(transport, source)) is not None:
            self._too_many.warn(source=source)
            self._close(oldest)

    def stop(self, transport: asyncio.Transport) -> None:
        """Stop the deadline: the head is complete, or the connection has ended."""
        if (timer := self._timers.pop(transport, None)) is not None:
            timer.cancel()
            self._connections.remove(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        self.stop(transport)
        # Abort instead of close: unread bytes of an earlier response must not keep the connection open.
        transport.abort()
