"""Which drone gets a new backend? The database filters those that may; here one of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.protocol.times import DroneTime

__all__ = ["COUNT_HOLDS_S", "FORGOTTEN_AFTER_S", "BackendCounts", "DroneCandidate", "DroneHand"]

# A drone's backends are counted again after this long. Counting thousands takes the database as long as all else that
# a new key needs, and what this controller spawns meanwhile is known.
COUNT_HOLDS_S = 1.0
# A drone that nobody considered for so long may be gone.
FORGOTTEN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class DroneCandidate:
    """A drone that may take a backend. ``local_time`` is what its clock said in its last heartbeat."""

    drone_id: int
    name: str
    local_time: DroneTime


class BackendCounts:
    """How many backends drones have, by what the database said lately and what was given to them since."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._counted_at: dict[int, float] = {}

    def recent(self, now_s: float) -> list[int]:
        """The drones that need not be counted now."""
        for drone_id, counted_at in list(self._counted_at.items()):
            if now_s - counted_at > FORGOTTEN_AFTER_S:
                del self._counted_at[drone_id], self._counts[drone_id]
        return [drone_id for drone_id, counted_at in self._counted_at.items() if now_s - counted_at < COUNT_HOLDS_S]

    def counted(self, drone_id: int, count: int, now_s: float) -> None:
        """The database has counted."""
        self._counts[drone_id] = count
        self._counted_at[drone_id] = now_s

    def of(self, drone_id: int) -> int:
        """The drone's backends; 0 for one that was never counted."""
        return self._counts.get(drone_id, 0)

    def one_more(self, drone_id: int) -> None:
        """The drone is given a backend."""
        if drone_id in self._counts:
            self._counts[drone_id] += 1


class DroneHand:
    """Drones of one cluster and pool, in random order, for several requests that are answered together."""

    def __init__(self, drones: Sequence[DroneCandidate], counts: BackendCounts) -> None:
        self._drones = drones
        self._counts = counts
        self._next = 0

    def deal(self, best_of: int) -> DroneCandidate | None:
        """Of the next ``best_of``, the one with the fewest backends; it counts as given to it from now on.

        The first of several. Each request sees other drones than the one before, until all have been seen.
        """
        count = len(self._drones)
        seen = [self._drones[(self._next + step) % count] for step in range(min(best_of, count))]
        self._next += len(seen)
        chosen = min(seen, key=lambda drone: self._counts.of(drone.drone_id), default=None)
        if chosen is not None:
            self._counts.one_more(chosen.drone_id)
        return chosen
