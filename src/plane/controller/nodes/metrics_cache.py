"""The latest metrics of backends. Every controller receives them, whichever one the drone is connected to.

They are kept in memory only, and for a minute: metrics that are not renewed are obsolete.
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

__all__ = ["MetricsCache", "decode_usage"]

# Beyond this number the least recently updated backends are forgotten.
MAX_BACKENDS = 200_000

log = structlog.get_logger("plane.controller")


class MetricsCache:
    """The latest metrics of each backend. `run` must be running."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._clock = asyncio.get_running_loop().time
        # In the order of their updates, the oldest first.
        self._latest: OrderedDict[str, tuple[float, Event]] = OrderedDict()

    async def run(self) -> None:
        """Receive metrics until cancelled."""
        while True:
            try:
                with self._bus.subscribe(EventKind.BACKEND_METRICS) as events:
                    async for event in events:
                        self._store(event)
            except Overflowed:
                log.warning("metrics arrive faster than they are processed; some were dropped")

    def _store(self, event: Event) -> None:
        if event.key is not None:
            self._latest[event.key] = (self._clock(), event)
            self._latest.move_to_end(event.key)
        self._forget_old()

    def _forget_old(self) -> None:
        limit = self._clock() - timing.METRICS_RETENTION_S
        while self._latest:
            received_at, _ = next(iter(self._latest.values()))
            if received_at >= limit and len(self._latest) <= MAX_BACKENDS:
                return
            self._latest.popitem(last=False)

    def of(self, backend_id: str) -> BackendUsage | None:
        """Return the latest metrics of a backend; None if there are none, or only old ones."""
        self._forget_old()
        latest = self._latest.get(backend_id)
        return None if latest is None else decode_usage(latest[1])

    def all(self) -> list[BackendUsage]:
        """Return the latest metrics of all backends."""
        self._forget_old()
        return [usage for _, event in self._latest.values() if (usage := decode_usage(event)) is not None]


def decode_usage(event: Event) -> BackendUsage | None:
    """Return the metrics of an event; None, with a warning, if they are malformed."""
    try:
        time_ms = int(event.timestamp.timestamp() * 1000)
        return codec.convert({**(event.payload or {}), "time": time_ms}, BackendUsage)
    except MessageError as error:
        log.warning("backend metrics not decoded", backend=event.key, error=str(error))
        return None
