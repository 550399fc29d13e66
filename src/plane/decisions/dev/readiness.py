"""Would a connect work in the cluster of `plane dev` that is starting? Pure."""

from __future__ import annotations

from plane.protocol.control_api import ClusterState

__all__ = ["not_ready"]


def not_ready(state: ClusterState, drones: int, since_start_s: float, *, proxy_ready: bool) -> str:
    """Return what is missing; empty: nothing is.

    Args:
        drones: how many there will be.
        since_start_s: since the controller started. An older heartbeat is of a former run that was killed; its drone
            stays listed as connected.
        proxy_ready: whether the proxy says that it is connected.
    """
    fresh = [drone for drone in state.drones if drone.ready and drone.last_heartbeat_age <= since_start_s]
    if len(fresh) < drones:
        return f"{drones - len(fresh)} of {drones} drones sent no heartbeat"
    return "" if proxy_ready else "the proxy is not connected to the controller"
