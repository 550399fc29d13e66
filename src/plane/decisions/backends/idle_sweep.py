"""Which backends are to be ended now, and when is the next look? `plane.controller.upkeep.sweeper` does it.

The database computes how long each has left, since only its clock counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.timing import SWEEP_INTERVAL_S

__all__ = ["SweepCandidate", "sweep"]

# Not more often than this, however many are due one after the other.
SHORTEST_WAIT_S = 0.25


@dataclass(frozen=True, slots=True)
class SweepCandidate:
    """A backend that is due to be ended in so many seconds; negative: it is overdue."""

    backend_id: str
    drone_id: int
    due_in_s: float


def sweep(candidates: Sequence[SweepCandidate]) -> tuple[list[SweepCandidate], float]:
    """The backends to end now, and the seconds until the next look: when the next is due, or an interval."""
    due = [candidate for candidate in candidates if candidate.due_in_s <= 0]
    later = [candidate.due_in_s for candidate in candidates if candidate.due_in_s > 0]
    return due, max(min(later, default=SWEEP_INTERVAL_S), SHORTEST_WAIT_S)
