"""Which drone gets a new backend: the one with the fewest backends among a few random candidates.

The database returns the candidates of a cluster and pool; `plane.controller.connect_statements` remembers them for a
moment as `DroneCandidates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plane.protocol.times import DroneTime

__all__ = ["CANDIDATES_VALID_S", "CountedDrone", "DroneCandidate", "DroneCandidates"]

# Candidates are read again after this long. Reading thousands of drones, and counting the backends of some, takes the
# database longer than everything else that a new key needs. What happens meanwhile does no harm: `spawn_backends`
# stores nothing for a drone that drains, and the own new backends are counted here.
CANDIDATES_VALID_S = 1.0


@dataclass(frozen=True, slots=True)
class DroneCandidate:
    """A drone that may take a backend.

    Attributes:
        local_time: the drone's clock at its last heartbeat.
        clock: the id of this clock; None: the drone has sent none.
    """

    drone_id: int
    name: str
    local_time: DroneTime
    clock: str | None = None


class CountedDrone(NamedTuple):
    """A candidate and the number of its backends."""

    candidate: DroneCandidate
    backend_count: int


class DroneCandidates:
    """Drones of one cluster and pool that may take a backend.

    Args:
        drones: in random order.
        now_s: when they were read, in seconds of a monotonic clock.
        are_all: there is no other drone. Otherwise each is considered once, so that a burst of new keys is spread over
            more drones than these.
    """

    def __init__(self, drones: Sequence[CountedDrone], now_s: float, *, are_all: bool) -> None:
        self._candidates = [drone.candidate for drone in drones]
        self._counts = {drone.candidate.drone_id: drone.backend_count for drone in drones}
        self._valid_until_s = now_s + CANDIDATES_VALID_S
        self._are_all = are_all
        self._next = 0

    def are_valid(self, now_s: float) -> bool:
        """Return whether they may still be used. Without a drone they are not: one may connect at any moment."""
        if not self._are_all and self._next >= len(self._candidates):
            return False
        return bool(self._candidates) and now_s < self._valid_until_s

    def choose(self, best_of: int) -> DroneCandidate | None:
        """Return the candidate with the fewest backends among the next ``best_of``; the first of several.

        Its count is incremented. Each call considers other candidates than the previous one, until all had their turn.
        """
        count = len(self._candidates)
        considered = [self._candidates[(self._next + step) % count] for step in range(min(best_of, count))]
        self._next += len(considered)
        chosen = min(considered, key=lambda drone: self._counts[drone.drone_id], default=None)
        if chosen is not None:
            self._counts[chosen.drone_id] += 1
        return chosen
