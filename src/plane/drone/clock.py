"""The drone's clock, in which all its deadlines are.

It is the machine's time of day at the drone's first start, and then counts the time since (CLOCK_BOOTTIME: suspends
included), over restarts of the drone too. So a step of the machine's clock neither ends leases early nor lets them
outlive themselves; the controller computes deadlines from the times that this clock reported
(docs/decisions/0002-drone-clock.md, 0004-readoption.md).
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
    """What makes a clock the same again: the boot that it counts from, and what is added to the time since."""

    boot_id: str
    offset_ns: int


class DroneClock:
    """Never steps. ``continues``: whether times of the clock that was stored are times of this one.

    Attributes:
        began: when this clock began; an earlier time is another clock's.

    Args:
        stored: the reading of the drone's former process; continued if the machine has not been booted since.
        stored_began: when that clock began; None: not known.
        last_known: the latest time that is known of that clock. A clock that begins anew begins later, by more than
            the time that the drone may have reported after it, so that no deadline of the former clock fits this one.
        boot_id, time_of_day_ns, since_boot_ns: the machine's; tests give others.
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
        """The drone's time."""
        return DroneTime((self._since_boot_ns() + self.reading.offset_ns) // 1_000_000)

    def since_boot_ns(self, at: DroneTime) -> int:
        """Return a time of this clock as nanoseconds of CLOCK_BOOTTIME, which all processes of the machine share."""
        return at.ms * 1_000_000 - self.reading.offset_ns
