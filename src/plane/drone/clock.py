"""The drone's clock, which all its deadlines refer to.

It begins with the machine's time of day at the drone's first start, and counts the time since (CLOCK_BOOTTIME, suspends
included), across restarts of the drone too. So a step of the machine's clock neither ends leases early nor extends
them. The controller computes deadlines from the times that this clock reports (docs/decisions/0002-drone-clock.md,
0004-readoption.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plane.protocol.times import DroneTime
from plane.timing import CLOCK_RESTART_MARGIN_S

__all__ = ["BOOT_ID", "ClockReading", "DroneClock"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What a later process needs to continue a clock: its boot, and the offset to the time since that boot."""

    boot_id: str
    offset_ns: int


class DroneClock:
    """A clock that never steps.

    Args:
        stored: the reading of the drone's former process, which is continued if the machine was not booted since.
        stored_began: when that clock began; None: unknown.
        last_known: the latest known time of that clock. A new clock begins later, by more than the time that the former
            process may have reported afterwards, so that no deadline of the former clock fits the new one.
        boot_id, time_of_day_ns, since_boot_ns: those of the machine; tests pass others.

    Attributes:
        continues: whether times of the stored clock are times of this one.
        began: when this clock began. An earlier time belongs to another clock.
        reading: what to store.
    """

    def __init__(
        self,
        stored: ClockReading | None = None,
        *,
        stored_began: DroneTime | None = None,
        last_known: DroneTime | None = None,
        boot_id: str | None = None,
        time_of_day_ns: Callable[[], int] = time.time_ns,
        since_boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        boot_id = boot_id or BOOT_ID.read_text().strip()
        self._since_boot_ns = since_boot_ns
        self.continues = stored is not None and stored.boot_id == boot_id
        if stored is not None and self.continues:
            self.reading = stored
            self.began = stored_began or DroneTime(0)
            return
        begins_ns = time_of_day_ns()
        if last_known is not None:
            begins_ns = max(begins_ns, last_known.plus_s(CLOCK_RESTART_MARGIN_S).ms * 1_000_000)
        self.reading = ClockReading(boot_id, begins_ns - since_boot_ns())
        self.began = self.now()

    def now(self) -> DroneTime:
        """Return the drone's time."""
        return DroneTime((self._since_boot_ns() + self.reading.offset_ns) // 1_000_000)

    def since_boot_ns(self, at: DroneTime) -> int:
        """Return a time of this clock in nanoseconds of CLOCK_BOOTTIME, which all processes of the machine share."""
        return at.ms * 1_000_000 - self.reading.offset_ns
