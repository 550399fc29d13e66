"""Decides whether a connect would work in a starting cluster of `plane dev`."""

from __future__ import annotations

from plane.protocol.control_api import ClusterState

__all__ = ["missing_part"]


def missing_part(state: ClusterState, drones: int, since_start_s: float, *, proxy_ready: bool) -> str:
    """Return the part that is not ready; empty if all are.

    Args:
        state: of the cluster.
        drones: their expected number.
        since_start_s: time since the controller started. An older heartbeat is of a former run that was killed, whose
            drone is still listed as connected.
        proxy_ready: whether the proxy reports that it is connected.
    """
    fresh = [drone for drone in state.drones if drone.ready and drone.last_heartbeat_age <= since_start_s]
    if len(fresh) < drones:
        return f"{drones - len(fresh)} of {drones} drones have not sent a heartbeat"
    return "" if proxy_ready else "the proxy is not connected to the controller"
