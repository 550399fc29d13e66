"""Closes connections to the controller that do not send a whole request head within ten seconds.

Also those that are too many of this kind: decided by `plane.decisions.http.unproven_connections`. The connect lane and
aiohttp's connections (`http_connection`) report to it.
"""

from __future__ import annotations

import asyncio

import structlog

from plane.decisions.http.unproven_connections import UnprovenConnections
from plane.throttled_log import ThrottledWarning
from plane.timing import REQUEST_HEAD_TIMEOUT_S

__all__ = ["RequestDeadlines"]

log = structlog.get_logger("plane.controller")


class RequestDeadlines:
    """The connections of one controller from which a request head is awaited.

    Args:
        limit: how many there may be.
        timeout_s: how long a request head may take from the opening of its connection, or from its own first byte.
    """

    def __init__(self, limit: int, timeout_s: float = REQUEST_HEAD_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._connections: UnprovenConnections[asyncio.Transport] = UnprovenConnections(limit)
        self._timers: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        self._too_many = ThrottledWarning(
            log, "too many connections without a request; closing the oldest", limit=limit
        )

    def start(self, transport: asyncio.Transport) -> None:
        """A request head is awaited. Does nothing if one is already: the deadline stays."""
        if transport in self._timers:
            return
        peer = transport.get_extra_info("peername")
        source = peer[0] if isinstance(peer, tuple) else ""
        self._timers[transport] = asyncio.get_running_loop().call_later(self._timeout_s, self._close, transport)
        if (oldest := self._connections.add(transport, source)) is not None:
            self._too_many.warn(source=source)
            self._close(oldest)

    def stop(self, transport: asyncio.Transport) -> None:
        """The head has come, or the connection has ended."""
        if (timer := self._timers.pop(transport, None)) is not None:
            timer.cancel()
            self._connections.remove(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        self.stop(transport)
        # Nothing was promised to it; what it has not read of an earlier response may keep it open no longer.
        transport.abort()
