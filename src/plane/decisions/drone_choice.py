"""Which drone gets a new backend? The database filters those that may; here one of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.protocol.times import DroneTime

__all__ = ["DroneCandidate", "DroneHand"]


@dataclass(frozen=True, slots=True)
class DroneCandidate:
    """A drone that may take a backend. ``local_time`` is what its clock said in its last heartbeat."""

    drone_id: int
    name: str
    local_time: DroneTime
    backend_count: int


class DroneHand:
    """Drones of one cluster and pool, in random order, for several requests that are answered together."""

    def __init__(self, drones: Sequence[DroneCandidate]) -> None:
        self._drones = list(drones)
        self._given = dict.fromkeys((drone.drone_id for drone in drones), 0)
        self._next = 0

    def deal(self, best_of: int) -> DroneCandidate | None:
        """Of the next ``best_of``, the one with the fewest backends, those given to it here included.

        The first of several. Each request sees other drones than the one before, until all have been seen.
        """
        count = len(self._drones)
        seen = [self._drones[(self._next + step) % count] for step in range(min(best_of, count))]
        self._next += len(seen)
        chosen = min(seen, key=lambda drone: drone.backend_count + self._given[drone.drone_id], default=None)
        if chosen is not None:
            self._given[chosen.drone_id] += 1
        return chosen
