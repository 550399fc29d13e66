"""Decides which silent drones are lost, for the event feed. `plane.controller.upkeep.reaper` records it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SilentDrone", "is_lost"]


@dataclass(frozen=True, slots=True)
class SilentDrone:
    """A drone that has sent no heartbeat for `DRONE_LOST_AFTER_S`.

    Attributes:
        stopped: its last message announced that it would stop.
        has_backends: it has backends that are not terminated.
    """

    drone_id: int
    name: str
    stopped: bool
    has_backends: bool


def is_lost(drone: SilentDrone) -> bool:
    """Return whether the drone is lost. One that announced its stop is missed only by the backends that it left."""
    return drone.has_backends or not drone.stopped
