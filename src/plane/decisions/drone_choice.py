"""Which drone gets a new backend? The database filters those that may; here one of them is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plane.protocol.times import DroneTime

__all__ = ["DroneCandidate", "choose_drone"]


@dataclass(frozen=True, slots=True)
class DroneCandidate:
    """A drone that may take a backend. ``local_time`` is what its clock said in its last heartbeat."""

    drone_id: int
    name: str
    local_time: DroneTime
    backend_count: int


def choose_drone(candidates: Sequence[DroneCandidate]) -> DroneCandidate | None:
    """The one with the fewest backends; the first of several, since they come in random order."""
    return min(candidates, key=lambda drone: drone.backend_count, default=None)
