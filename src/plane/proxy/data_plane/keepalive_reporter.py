"""Tells the controller which backends are in use. Decided by `plane.decisions.routing.activity_monitor`.

`began` and `ended` are on the path of every request and only count; `run` sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.decisions.routing.activity_monitor import ConnectionMonitor
from plane.timing import IDLE_POLL_INTERVAL_S

__all__ = ["ConnectionKeeper"]


class ConnectionKeeper:
    """Keeps the backends in use alive. ``send`` tells the controller of one, or does nothing without a connection."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._monitor = ConnectionMonitor()
        self._new: list[str] = []
        self._wake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.ended = self._monitor.ended

    def began(self, backend_id: str) -> None:
        """A request or tunnel began."""
        if self._monitor.began(backend_id, self._clock()):
            self._new.append(backend_id)
            self._wake.set()

    def connected(self) -> None:
        """A new connection to a controller: what is in use is told again at once."""
        self._new = self._monitor.in_use()
        self._wake.set()

    async def run(self) -> None:
        """Send each backend when it begins to be used, each interval, and when it becomes quiet; until cancelled."""
        next_look = self._clock() + IDLE_POLL_INTERVAL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_look):
                    await self._wake.wait()
            self._wake.clear()
            due, self._new = self._new, []
            if self._clock() >= next_look:
                due += self._monitor.look(self._clock())
                next_look = self._clock() + IDLE_POLL_INTERVAL_S
            for backend_id in due:
                await self._send(backend_id)
