"""The drone's clock, in which all its deadlines are.

It is the machine's time of day at the start, and then counts the time since (CLOCK_BOOTTIME: suspends
included). So a step of the machine's clock neither ends leases early nor lets them outlive themselves; the
controller computes deadlines from the times that this clock reported (docs/decisions/0002-drone-clock.md).
"""

from __future__ import annotations

import time

from plane.protocol.times import DroneTime

__all__ = ["DroneClock"]


class DroneClock:
    """Never steps, and starts at the time of day."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def now(self) -> DroneTime:
        """The drone's time."""
        return DroneTime((time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_ns) // 1_000_000)
