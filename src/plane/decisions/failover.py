"""A standby has taken over the database: for how long is no key granted?

An asynchronous standby may lack the last commits: a key that it calls free may have been granted, and its process
lives until the end of its lease. `plane.controller.database_clock` asks, once for each controller and failover.
"""

from __future__ import annotations

from plane.timing import FAILOVER_OBJECTION_S, KEY_LEASE_S

__all__ = ["no_grants_for"]


def no_grants_for(missing: int | None) -> float:
    """Seconds from now without grants; the longest that any controller demands counts.

    Args:
        missing: how many of the commits that this controller knows the database does not have; None: it has not been
            there before the failover, and knows none.
    """
    return FAILOVER_OBJECTION_S if missing == 0 else KEY_LEASE_S
