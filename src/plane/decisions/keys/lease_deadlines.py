"""Until when does a lease of a key hold, seen from the drone? And is it a lease on the clock that the drone has now?

`lease_deadlines` is called by the controller when a key is acquired or renewed, `foreign_lease` by the drone. The hard
deadline is 50 s from the first lease on.
"""

from __future__ import annotations

from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.timing import KEY_HARD_TERMINATE_AFTER_S, KEY_RENEW_AFTER_S, KEY_SOFT_TERMINATE_AFTER_S

__all__ = ["foreign_lease", "lease_deadlines"]


def lease_deadlines(start: DroneTime) -> KeyDeadlines:
    """The deadlines of a lease that was taken, or renewed, at ``start`` on the drone's clock."""
    return KeyDeadlines(
        renew_at=start.plus_s(KEY_RENEW_AFTER_S),
        soft_terminate_at=start.plus_s(KEY_SOFT_TERMINATE_AFTER_S),
        hard_terminate_at=start.plus_s(KEY_HARD_TERMINATE_AFTER_S),
    )


def foreign_lease(deadlines: KeyDeadlines, clock_began: DroneTime, now: DroneTime) -> str | None:
    """Return why the deadlines cannot be of a lease that began on the drone's clock as it is now; None: they can.

    A drone whose machine was booted, or whose store was lost, has another clock than the one that it reported before.
    Deadlines that were computed from the former clock mean nothing on this one.
    """
    began = deadlines.hard_terminate_at.plus_s(-KEY_HARD_TERMINATE_AFTER_S)
    if began < clock_began:
        return "its lease began before this drone's clock did"
    if began > now:
        return "its lease begins in the future of this drone's clock"
    return None
