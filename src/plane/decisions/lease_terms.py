"""Until when does a lease of a key hold, seen from the drone?

Called by the controller when a key is acquired or renewed. Rule: page 3; the hard deadline is 50 s from the
first lease on (A1 of page 7).
"""

from __future__ import annotations

from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.timing import KEY_HARD_TERMINATE_AFTER_S, KEY_RENEW_AFTER_S, KEY_SOFT_TERMINATE_AFTER_S

__all__ = ["lease_deadlines"]


def lease_deadlines(start: DroneTime) -> KeyDeadlines:
    """The deadlines of a lease that was taken, or renewed, at ``start`` on the drone's clock."""
    return KeyDeadlines(
        renew_at=start.plus_s(KEY_RENEW_AFTER_S),
        soft_terminate_at=start.plus_s(KEY_SOFT_TERMINATE_AFTER_S),
        hard_terminate_at=start.plus_s(KEY_HARD_TERMINATE_AFTER_S),
    )
