"""Decides how long no keys are granted after the database was restarted, restored, or taken over by a standby.

The database may lack the last commits: a key that it considers free may have been granted, and its process lives until
the end of its lease. `plane.controller.upkeep.database_clock` calls this, once per controller and event.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import FAILOVER_OBJECTION_S, KEY_LEASE_S

__all__ = ["DatabaseState", "may_lack_commits", "no_grants_for"]

# The first part of a timeline's text; the rest is the start time of the server.
TIMELINE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """Identifies a run of a database server; None is unknown.

    ``timeline``: its number, a space, and the server's start time. ``written``: bytes of the write-ahead log.
    """

    timeline: str | None
    written: int | None


def may_lack_commits(before: DatabaseState, now: DatabaseState) -> bool:
    """Return whether the database may lack commits: it is another server, was restarted, or has an earlier state."""
    went_back = before.written is not None and now.written is not None and now.written < before.written
    return before.timeline != now.timeline or went_back


def no_grants_for(missing: int | None, before: str | None, now: str | None) -> float:
    """Return the seconds from now without grants; the longest time of all controllers applies.

    Args:
        missing: number of commits that this controller knows and the database lacks; None: this controller has just
            started, and knows none.
        before: timeline and start time on which keys were granted.
        now: those of the server.
    """
    if missing is None:
        # Plain restarts lose nothing, unless files were replaced, which other controllers may detect.
        same = before is not None and now is not None and before[:TIMELINE_DIGITS] == now[:TIMELINE_DIGITS]
        return FAILOVER_OBJECTION_S if same else KEY_LEASE_S
    return FAILOVER_OBJECTION_S if missing == 0 else KEY_LEASE_S
