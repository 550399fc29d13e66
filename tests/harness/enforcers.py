"""Stands in for the drone's watchdog in tests of what is above it, and a clock that began long ago."""

from __future__ import annotations

import time

from plane.drone.clock import BOOT_ID, ClockReading, DroneClock
from plane.runtime.base import DeadlinesNotEnforced

__all__ = ["FakeEnforcer", "aged_clock"]


class FakeEnforcer:
    """Enforces nothing, and records the deadlines.

    Attributes:
        confirms: whether it confirms deadlines.
    """

    def __init__(self) -> None:
        self.confirms = True
        self.hard_deadlines: dict[str, int] = {}
        self.released: list[str] = []

    def enforce(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        assert soft_ns <= hard_ns
        self.hard_deadlines[backend_id] = hard_ns

    def release(self, backend_id: str) -> None:
        self.hard_deadlines.pop(backend_id, None)
        self.released.append(backend_id)

    async def wait_confirmed(self) -> None:
        if not self.confirms:
            raise DeadlinesNotEnforced("the fake does not confirm")


def aged_clock() -> DroneClock:
    """The clock of a drone that has run for so long that any lease may have begun on it."""
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return DroneClock(ClockReading(BOOT_ID.read_text().strip(), offset))
