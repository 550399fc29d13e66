"""The database was restarted, restored, or taken over by a standby: for how long is no key granted?

It may lack the last commits: a key that it calls free may have been granted, and its process lives until the end of
its lease. `plane.controller.upkeep.database_clock` asks, once for each controller and event.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import FAILOVER_OBJECTION_S, KEY_LEASE_S

__all__ = ["DatabaseState", "may_lack_commits", "no_grants_for"]

# Of a timeline's text: the rest is the time of the server's start.
TIMELINE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What tells one run of a database server from another.

    ``timeline``: its number, a space, and the time of the server's start. ``written``: bytes of its log. None: unknown.
    """

    timeline: str | None
    written: int | None


def may_lack_commits(before: DatabaseState, now: DatabaseState) -> bool:
    """Return whether the database may lack what it once had: another server, a restart, or an earlier state of it."""
    went_back = before.written is not None and now.written is not None and now.written < before.written
    return before.timeline != now.timeline or went_back


def no_grants_for(missing: int | None, before: str | None, now: str | None) -> float:
    """Return the seconds from now without grants; the longest that any controller demands counts.

    Args:
        missing: how many of the commits that this controller knows the database does not have; None: it has not been
            there before, and knows none.
        before: the timeline and start on which keys were granted.
        now: those of the server.
    """
    if missing is None:
        # Restarts are usual, and lose nothing but where files were exchanged, which others may know.
        same = before is not None and now is not None and before[:TIMELINE_DIGITS] == now[:TIMELINE_DIGITS]
        return FAILOVER_OBJECTION_S if same else KEY_LEASE_S
    return FAILOVER_OBJECTION_S if missing == 0 else KEY_LEASE_S
