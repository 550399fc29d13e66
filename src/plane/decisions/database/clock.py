"""Detects steps of the database's clock by comparing it with a steady clock.

Every lease, heartbeat and age is in the database's time. `plane.controller.upkeep.database_clock` reads that clock
every second together with its own steady one (CLOCK_BOOTTIME), and carries out the decisions made here. Statements
consider time as passed only up to three seconds after the last confirmation (``plane_now`` in the database). Nothing
expires by a step, therefore, before the stored times have been shifted. See ``docs/decisions/0013-database-clock.md``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ClockAction", "ClockDecision", "ClockReading", "DatabaseClock", "LastConfirmation"]

# Smaller steps are within the margin that a lease's deadlines leave between drone and database.
TOLERANCE_S = 2.0
# A reading that took longer is too inaccurate: the process was stopped, or the database was slow.
MAX_READING_S = 1.0
# Like in ``plane_now``: a confirmation of this age is still reliable.
CONFIRMATION_VALID_S = 3.0
# A controller without a baseline waits this long for another controller that has one.
PEER_WAIT_S = 5.0
# Clocks drift apart by up to 500 ppm while one is slewed: 0.3 s in this time.
BASELINE_MAX_AGE_S = 600.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A simultaneous reading of both clocks, in seconds.

    Attributes:
        before_s, after_s: the steady clock right before and right after the database's was read.
        database_s: the database's clock.
        shifted_s: the total shift of the stored times.
    """

    before_s: float
    after_s: float
    database_s: float
    shifted_s: float

    @property
    def unshifted_s(self) -> float:
        """The database's clock without the steps that have been handled."""
        return self.database_s - self.shifted_s


@dataclass(frozen=True, slots=True)
class LastConfirmation:
    """The last confirmation of the database's clock.

    Attributes:
        confirmed_s: the database's time of the confirmation.
        boot_id, steady_s: boot and steady clock of the confirming controller's machine; None if there was none.
    """

    confirmed_s: float
    boot_id: str | None
    steady_s: float | None


class ClockAction(enum.Enum):
    """What to do after a reading.

    ``CONFIRM``: the clock is correct. ``SHIFT``: shift the stored times by a step, unless another controller has done
        so.
    ``WAIT``: the reading is inconclusive.
    """

    CONFIRM = enum.auto()
    SHIFT = enum.auto()
    WAIT = enum.auto()


@dataclass(frozen=True, slots=True)
class ClockDecision:
    """An action and, for ``SHIFT``, its step in seconds, forward if positive.

    ``measured`` false: no controller watched the clock, so the whole time since the last confirmation counts as a step.
    """

    action: ClockAction
    step_s: float = 0.0
    measured: bool = True


class DatabaseClock:
    """State machine of one controller's watch. ``boot_id`` is of its machine; empty if that has none."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._baseline: ClockReading | None = None
        self._shifted_s = 0.0
        self._unknown_since_s: float | None = None

    def read(self, reading: ClockReading, last: LastConfirmation) -> ClockDecision:
        """Return what to do after a reading; ``last`` was read with it.

        A shift by another controller is accepted without measuring it again. Otherwise two controllers whose steady
        clocks differ, for example because a machine was paused, would shift forth and back.
        """
        if reading.after_s - reading.before_s > MAX_READING_S:
            return ClockDecision(ClockAction.WAIT)
        if self._baseline is None:
            self._baseline, self._shifted_s = self._initial_baseline(reading, last), reading.shifted_s
        if self._baseline is None:
            return self._without_baseline(reading, last)
        if reading.shifted_s != self._shifted_s:
            self._baseline, self._shifted_s = reading, reading.shifted_s
            return ClockDecision(ClockAction.WAIT)
        step_s = _step(self._baseline, reading)
        if abs(step_s) > TOLERANCE_S:
            return ClockDecision(ClockAction.SHIFT, step_s)
        if reading.before_s - self._baseline.before_s > BASELINE_MAX_AGE_S:
            self._baseline = reading
        return ClockDecision(ClockAction.CONFIRM)

    def has_shifted(self, shifted_s: float) -> None:
        """Note that this controller has shifted the stored times, and their total shift."""
        self._shifted_s = shifted_s

    def _initial_baseline(self, reading: ClockReading, last: LastConfirmation) -> ClockReading | None:
        """Return the first baseline of this controller; None if there is nothing reliable."""
        if self._boot_id and last.boot_id == self._boot_id and last.steady_s is not None:
            after_s = last.steady_s + MAX_READING_S
            return ClockReading(last.steady_s, after_s, last.confirmed_s, reading.shifted_s)
        if -TOLERANCE_S <= reading.database_s - last.confirmed_s <= CONFIRMATION_VALID_S:
            return reading
        return None

    def _without_baseline(self, reading: ClockReading, last: LastConfirmation) -> ClockDecision:
        if self._unknown_since_s is None:
            self._unknown_since_s = reading.before_s
        if reading.after_s - self._unknown_since_s < PEER_WAIT_S:
            return ClockDecision(ClockAction.WAIT)
        self._unknown_since_s = None
        return ClockDecision(ClockAction.SHIFT, reading.database_s - last.confirmed_s, measured=False)


def _step(earlier: ClockReading, later: ClockReading) -> float:
    """Return how much further the database's clock has moved than the steady one; 0 if within the tolerance.

    The database's clock was read at some moment between the two readings of the steady clock.
    """
    moved_s = later.unshifted_s - earlier.unshifted_s
    least_s, most_s = later.before_s - earlier.after_s, later.after_s - earlier.before_s
    if least_s - TOLERANCE_S <= moved_s <= most_s + TOLERANCE_S:
        return 0.0
    return moved_s - (least_s + most_s) / 2
