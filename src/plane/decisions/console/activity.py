"""Starts, ends and failures of backends per minute, for the console's overview.

`Activity` keeps the last hour only, in a fixed number of counters. An event counts in the minute in which the database
stored it, so that events that are read again after a lost connection count where they belong.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.decisions.backends.failures import is_failure
from plane.protocol.backend_state import BackendState, BackendStatus, Terminated

__all__ = ["MINUTES", "Activity", "Minute"]

MINUTES = 60


@dataclass(slots=True)
class Minute:
    """Counts of one minute. ``failures`` are part of ``ends``."""

    starts: int = 0
    ends: int = 0
    failures: int = 0


class Activity:
    """The counters of one controller, by minutes since 1970."""

    def __init__(self, now_s: float) -> None:
        self._minutes: dict[int, Minute] = {}
        self.since_minute = int(now_s // 60)

    def count(self, state: BackendState, at_s: float, now_s: float) -> None:
        """Count a backend's new state, stored at ``at_s``; states that neither start nor end a backend are skipped."""
        if state.status is BackendStatus.SCHEDULED and (minute := self._minute(at_s, now_s)) is not None:
            minute.starts += 1
        elif isinstance(state, Terminated) and (minute := self._minute(at_s, now_s)) is not None:
            minute.ends += 1
            minute.failures += is_failure(state)

    def last_hour(self, now_s: float) -> list[tuple[int, Minute]]:
        """Return the minutes of the last hour, oldest first, with their beginnings in seconds since 1970."""
        newest = int(now_s // 60)
        return [
            (number * 60, self._minutes.get(number, Minute())) for number in range(newest - MINUTES + 1, newest + 1)
        ]

    def _minute(self, at_s: float, now_s: float) -> Minute | None:
        number, newest = int(at_s // 60), int(now_s // 60)
        # The database's clock may be ahead of this machine's.
        number = min(number, newest)
        if number <= newest - MINUTES:
            return None
        for old in [key for key in self._minutes if key <= newest - MINUTES]:
            del self._minutes[old]
        return self._minutes.setdefault(number, Minute())
