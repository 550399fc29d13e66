"""Which drone gets a new backend: the one with the fewest backends among a few random candidates.

The database returns the candidates; `plane.controller.connect_statements` feeds the counts and calls `DroneSelector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.protocol.times import DroneTime

__all__ = ["COUNT_RETENTION_S", "COUNT_VALID_S", "BackendCounts", "DroneCandidate", "DroneSelector"]

# A drone's backends are counted again after this long. Counting thousands takes the database as long as everything else
# that a new key needs, and this controller adds what it spawns meanwhile.
COUNT_VALID_S = 1.0
# A drone that was no candidate for so long may be gone.
COUNT_RETENTION_S = 60.0


@dataclass(frozen=True, slots=True)
class DroneCandidate:
    """A drone that may take a backend. ``local_time`` is the drone's clock at its last heartbeat."""

    drone_id: int
    name: str
    local_time: DroneTime


class BackendCounts:
    """Backends per drone: the database's recent count, plus the backends assigned since."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._counted_at: dict[int, float] = {}

    def recently_counted(self, now_s: float) -> list[int]:
        """Return the drones that need not be counted now. Forgets those that were not counted for a minute."""
        for drone_id, counted_at in list(self._counted_at.items()):
            if now_s - counted_at > COUNT_RETENTION_S:
                del self._counted_at[drone_id], self._counts[drone_id]
        return [drone_id for drone_id, counted_at in self._counted_at.items() if now_s - counted_at < COUNT_VALID_S]

    def record(self, drone_id: int, count: int, now_s: float) -> None:
        """Store the database's count."""
        self._counts[drone_id] = count
        self._counted_at[drone_id] = now_s

    def of(self, drone_id: int) -> int:
        """Return the number of the drone's backends; 0 for a drone that was never counted."""
        return self._counts.get(drone_id, 0)

    def increment(self, drone_id: int) -> None:
        """Add one backend to the drone's count."""
        if drone_id in self._counts:
            self._counts[drone_id] += 1


class DroneSelector:
    """Selects among the candidates of one cluster and pool, in random order, for the requests of one batch."""

    def __init__(self, candidates: Sequence[DroneCandidate], counts: BackendCounts) -> None:
        self._candidates = candidates
        self._counts = counts
        self._next = 0

    def choose(self, best_of: int) -> DroneCandidate | None:
        """Return the candidate with the fewest backends among the next ``best_of``; the first of several.

        Its count is incremented. Each call considers other candidates than the previous one, until all had their turn.
        """
        count = len(self._candidates)
        considered = [self._candidates[(self._next + step) % count] for step in range(min(best_of, count))]
        self._next += len(considered)
        chosen = min(considered, key=lambda drone: self._counts.of(drone.drone_id), default=None)
        if chosen is not None:
            self._counts.increment(chosen.drone_id)
        return chosen
