"""Does the database's clock run as a steady clock does, or has it stepped?

Every lease, heartbeat and age is in the database's time. `plane.controller.upkeep.database_clock` reads that clock
every second together with its own steady one (CLOCK_BOOTTIME), and does what is decided here. Statements take a time
for passed only up to the last confirmation and three seconds (``plane_now`` in the database), so what a step would end
lives until the stored times have been shifted by the step.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ClockAction", "ClockReading", "ClockVerdict", "DatabaseClock", "LastConfirmation"]

# A step of less is within what the deadlines of a lease leave between drone and database.
TOLERANCE_S = 2.0
# A reading that took longer says too little: the process was stopped, or the database slow.
READING_LIMIT_S = 1.0
# As of ``plane_now``: what was confirmed so lately may be built upon.
TRUSTED_FOR_S = 3.0
# A controller that knows nothing of the clock waits so long for another that does.
OTHERS_WAIT_S = 5.0
# Clocks run apart by up to 500 ppm while one is slewed: 0.3 s in this time.
BASELINE_S = 600.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Both clocks at one moment, in seconds.

    Attributes:
        before_s, after_s: the steady clock right before and right after the database's was read.
        database_s: the database's clock.
        shifted_s: by how much the stored times had been shifted in all.
    """

    before_s: float
    after_s: float
    database_s: float
    shifted_s: float

    @property
    def unshifted_s(self) -> float:
        """The database's clock without the steps that are accounted for."""
        return self.database_s - self.shifted_s


@dataclass(frozen=True, slots=True)
class LastConfirmation:
    """What the database says of its clock: when it was last confirmed, and by whom.

    Attributes:
        confirmed_s: the database's time then.
        boot_id, steady_s: of the machine whose controller confirmed it, and that one's steady clock; None: never yet.
    """

    confirmed_s: float
    boot_id: str | None
    steady_s: float | None


class ClockAction(enum.Enum):
    """What is done after a reading.

    ``CONFIRM``: the clock runs as it should. ``SHIFT``: the stored times are shifted by a step, if no other controller
    has done so. ``WAIT``: the reading says nothing.
    """

    CONFIRM = enum.auto()
    SHIFT = enum.auto()
    WAIT = enum.auto()


@dataclass(frozen=True, slots=True)
class ClockVerdict:
    """``step_s``: of ``SHIFT``, forward if positive. ``measured`` false: nobody watched the clock meanwhile, and the
    whole time since the last confirmation counts as a step."""

    action: ClockAction
    step_s: float = 0.0
    measured: bool = True


class DatabaseClock:
    """What one controller knows of the database's clock. ``boot_id`` is its machine's; empty if it has none."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._baseline: ClockReading | None = None
        self._shifted_s = 0.0
        self._unknown_since_s: float | None = None

    def read(self, reading: ClockReading, last: LastConfirmation) -> ClockVerdict:
        """Judge a reading; ``last`` was read with it.

        What another controller has shifted is taken as it is. To measure that again would have two controllers shift
        to and fro whose steady clocks differ, as that of a machine that was paused.
        """
        if reading.after_s - reading.before_s > READING_LIMIT_S:
            return ClockVerdict(ClockAction.WAIT)
        if self._baseline is None:
            self._baseline, self._shifted_s = self._found_baseline(reading, last), reading.shifted_s
        if self._baseline is None:
            return self._unknown(reading, last)
        if reading.shifted_s != self._shifted_s:
            self._baseline, self._shifted_s = reading, reading.shifted_s
            return ClockVerdict(ClockAction.WAIT)
        step_s = _step(self._baseline, reading)
        if abs(step_s) > TOLERANCE_S:
            return ClockVerdict(ClockAction.SHIFT, step_s)
        if reading.before_s - self._baseline.before_s > BASELINE_S:
            self._baseline = reading
        return ClockVerdict(ClockAction.CONFIRM)

    def has_shifted(self, shifted_s: float) -> None:
        """This controller has shifted the stored times: by so much in all, from now on."""
        self._shifted_s = shifted_s

    def _found_baseline(self, reading: ClockReading, last: LastConfirmation) -> ClockReading | None:
        """The reading to compare with, of a controller that begins; None if there is nothing to go by."""
        if self._boot_id and last.boot_id == self._boot_id and last.steady_s is not None:
            after_s = last.steady_s + READING_LIMIT_S
            return ClockReading(last.steady_s, after_s, last.confirmed_s, reading.shifted_s)
        if -TOLERANCE_S <= reading.database_s - last.confirmed_s <= TRUSTED_FOR_S:
            return reading
        return None

    def _unknown(self, reading: ClockReading, last: LastConfirmation) -> ClockVerdict:
        if self._unknown_since_s is None:
            self._unknown_since_s = reading.before_s
        if reading.after_s - self._unknown_since_s < OTHERS_WAIT_S:
            return ClockVerdict(ClockAction.WAIT)
        self._unknown_since_s = None
        return ClockVerdict(ClockAction.SHIFT, reading.database_s - last.confirmed_s, measured=False)


def _step(earlier: ClockReading, later: ClockReading) -> float:
    """By how much the database's clock has moved more than the steady one, forward if positive; 0 if it need not have.

    Each reading lies somewhere between its two readings of the steady clock.
    """
    moved_s = later.unshifted_s - earlier.unshifted_s
    least_s, most_s = later.before_s - earlier.after_s, later.after_s - earlier.before_s
    if least_s - TOLERANCE_S <= moved_s <= most_s + TOLERANCE_S:
        return 0.0
    return moved_s - (least_s + most_s) / 2
