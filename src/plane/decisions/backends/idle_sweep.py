"""Decide which idle or expired backends to terminate now, and when to check again.

`plane.controller.upkeep.sweeper` does it. The database computes the remaining times, since only its clock counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.timing import SWEEP_INTERVAL_S

__all__ = ["SweepCandidate", "sweep"]

# The shortest time between two checks, however many backends become due one after the other.
SHORTEST_WAIT_S = 0.25


@dataclass(frozen=True, slots=True)
class SweepCandidate:
    """A backend that is to be terminated.

    Attributes:
        due_in_s: seconds until then; negative if it is overdue.
    """

    backend_id: str
    drone_id: int
    due_in_s: float


def sweep(candidates: Sequence[SweepCandidate]) -> tuple[list[SweepCandidate], float]:
    """Return the backends to terminate now, and the seconds until the next check.

    That is when the next backend is due, or `SWEEP_INTERVAL_S` later if none is.
    """
    due = [candidate for candidate in candidates if candidate.due_in_s <= 0]
    later = [candidate.due_in_s for candidate in candidates if candidate.due_in_s > 0]
    return due, max(min(later, default=SWEEP_INTERVAL_S), SHORTEST_WAIT_S)
