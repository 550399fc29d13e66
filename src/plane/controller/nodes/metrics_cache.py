"""What backends use, as their drones last said: heard by every controller, whichever the drone is connected to (A15).

Kept in memory only, and for a minute: metrics are not stored, and one that is no longer renewed is no longer true.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import structlog

from plane import timing
from plane.database.event_bus import EventBus, Overflowed
from plane.protocol import codec
from plane.protocol.control_api import BackendUsage
from plane.protocol.errors import MessageError
from plane.protocol.notifications import Event, EventKind

__all__ = ["LatestMetrics"]

# Of this many backends; beyond that the ones heard least lately are forgotten.
BACKENDS_LIMIT = 200_000

log = structlog.get_logger("plane.controller")


class LatestMetrics:
    """The newest metrics of each backend. `run` must be running."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._clock = asyncio.get_running_loop().time
        # In the order in which they were heard, so that the oldest come first.
        self._heard: OrderedDict[str, tuple[float, Event]] = OrderedDict()

    async def run(self) -> None:
        """Listen, until cancelled."""
        while True:
            try:
                with self._bus.subscribe(EventKind.BACKEND_METRICS) as events:
                    async for event in events:
                        self._remember(event)
            except Overflowed:
                log.warning("metrics come faster than they are read; some were missed")

    def _remember(self, event: Event) -> None:
        if event.key is not None:
            self._heard[event.key] = (self._clock(), event)
            self._heard.move_to_end(event.key)
        self._forget_old()

    def _forget_old(self) -> None:
        limit = self._clock() - timing.METRICS_RETENTION_S
        while self._heard:
            heard_at, _ = next(iter(self._heard.values()))
            if heard_at >= limit and len(self._heard) <= BACKENDS_LIMIT:
                return
            self._heard.popitem(last=False)

    def of(self, backend_id: str) -> BackendUsage | None:
        """The newest metrics of a backend; None if there are none, or only old ones."""
        self._forget_old()
        heard = self._heard.get(backend_id)
        return None if heard is None else _usage(heard[1])

    def all(self) -> list[BackendUsage]:
        """The newest metrics of all backends."""
        self._forget_old()
        return [usage for _, event in self._heard.values() if (usage := _usage(event)) is not None]


def _usage(event: Event) -> BackendUsage | None:
    try:
        time_ms = int(event.timestamp.timestamp() * 1000)
        return codec.convert({**(event.payload or {}), "time": time_ms}, BackendUsage)
    except MessageError as error:
        log.warning("metrics not understood", backend=event.key, error=str(error))
        return None
