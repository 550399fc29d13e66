from __future__ import annotations

from plane.decisions.dev.readiness import missing_part
from plane.protocol.control_api import ClusterState, DroneState, NodeNameOfKind, NodeState


def state(*drones: tuple[bool, int]) -> ClusterState:
    node = NodeState(
        name=NodeNameOfKind(drone="dr-dev"),
        plane_version="1",
        plane_hash="x",
        controller="co-dev",
        controller_heartbeat_age=0,
    )
    found = [
        DroneState(ready=ready, draining=False, last_heartbeat_age=age, backend_count=0, node=node)
        for ready, age in drones
    ]
    return ClusterState(drones=found, proxies=[])


def test_cluster_is_ready_with_all_drones_and_the_proxy() -> None:
    assert missing_part(state((True, 0)), 1, 0.3, proxy_ready=True) == ""
    assert missing_part(state((True, 0)), 1, 0.3, proxy_ready=False) == "the proxy is not connected to the controller"
    assert missing_part(state((True, 0)), 2, 0.3, proxy_ready=True) == "1 of 2 drones have not sent a heartbeat"
    assert missing_part(state(), 0, 0.3, proxy_ready=True) == ""


def test_heartbeat_of_a_killed_run_does_not_count() -> None:
    assert missing_part(state((True, 40)), 1, 0.3, proxy_ready=True) != ""
    assert missing_part(state((False, 0)), 1, 0.3, proxy_ready=True) != ""
    assert missing_part(state((True, 2)), 1, 3.0, proxy_ready=True) == ""
