"""Tells the controller which backends are in use. Decided by `plane.decisions.connection_monitor`.

`began` and `ended` are on the path of every request and only count; `run` sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.decisions.connection_monitor import ConnectionMonitor
from plane.timing import HEARTBEAT_INTERVAL_S

__all__ = ["ConnectionKeeper"]


class ConnectionKeeper:
    """Keeps the backends in use alive. ``send`` tells the controller of one, or does nothing without a connection."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._monitor = ConnectionMonitor()
        self._new: list[str] = []
        self._wake = asyncio.Event()
        self.ended = self._monitor.ended

    def began(self, backend_id: str) -> None:
        """A request or tunnel began."""
        if self._monitor.began(backend_id):
            self._new.append(backend_id)
            self._wake.set()

    def connected(self) -> None:
        """A new connection to a controller: what is in use is told again at once."""
        self._new = self._monitor.in_use()
        self._wake.set()

    async def run(self) -> None:
        """Send each backend when it begins to be used, and then each interval; until cancelled."""
        clock = asyncio.get_running_loop().time
        next_tick = clock() + HEARTBEAT_INTERVAL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_tick):
                    await self._wake.wait()
            self._wake.clear()
            new, self._new = self._new, []
            if clock() >= next_tick:
                new = self._monitor.tick()
                next_tick = clock() + HEARTBEAT_INTERVAL_S
            for backend_id in new:
                await self._send(backend_id)
