"""Reports to the controller which backends are in use. `plane.decisions.routing.activity_monitor` decides when.

`use_started` and `use_ended` are on the path of every request and only count; `run` sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.decisions.routing.activity_monitor import ActivityMonitor
from plane.timing import IDLE_POLL_INTERVAL_S

__all__ = ["KeepaliveReporter"]


class KeepaliveReporter:
    """Keeps the backends in use alive. ``send`` sends one keepalive, or does nothing without a connection."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._monitor = ActivityMonitor()
        self._new: list[str] = []
        self._wake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.use_ended = self._monitor.use_ended

    def use_started(self, backend_id: str) -> None:
        """Count a request or tunnel that begins."""
        if self._monitor.use_started(backend_id, self._clock()):
            self._new.append(backend_id)
            self._wake.set()

    def connected(self) -> None:
        """Handle a new connection to a controller: report all backends in use at once."""
        self._new = self._monitor.in_use()
        self._wake.set()

    async def run(self) -> None:
        """Report each backend when its use begins, each interval, and when it becomes idle, until cancelled."""
        next_poll = self._clock() + IDLE_POLL_INTERVAL_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_poll):
                    await self._wake.wait()
            self._wake.clear()
            due, self._new = self._new, []
            if self._clock() >= next_poll:
                due += self._monitor.poll(self._clock())
                next_poll = self._clock() + IDLE_POLL_INTERVAL_S
            for backend_id in due:
                await self._send(backend_id)
