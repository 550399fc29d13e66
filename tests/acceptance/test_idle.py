"""An idle process is stopped; a silent tunnel and a long download count as use."""

from __future__ import annotations

import contextlib
import http.client
import threading

from harness.clusters import Cluster

MAX_IDLE_S = 2


def test_an_idle_process_is_terminated(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})
    assert cluster.get(answer["url"]).status == 200
    entry = cluster.until_status(answer["backend_id"], "terminated")
    assert entry["termination_reason"] == "swept"
    assert cluster.get(answer["url"]).status == 410


def wait_for_two_sweeps(cluster: Cluster) -> None:
    """Return when two backends that nobody uses have been swept, one after the other."""
    for _ in range(2):
        idle = cluster.spawn(spawn={"max_idle_seconds": MAX_IDLE_S})["backend_id"]
        assert cluster.until_status(idle, "terminated")["termination_reason"] == "swept"


def test_a_tunnel_without_a_byte_of_traffic_keeps_its_backend_alive(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})
    backend = answer["backend_id"]
    with cluster.tunnel(answer["url"]) as tunnel:
        wait_for_two_sweeps(cluster)
        assert cluster.status(backend)["status"] == "ready"
        tunnel.sendall(b"still here")
        assert tunnel.recv(100) == b"still here"
    cluster.until_status(backend, "terminated")


def test_a_long_download_keeps_its_backend_alive(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})

    def download() -> None:
        # It is cut when the backend is killed.
        with contextlib.suppress(OSError, http.client.HTTPException):
            cluster.get(answer["url"], "trickle?600", timeout_s=60)

    thread = threading.Thread(target=download)
    thread.start()
    wait_for_two_sweeps(cluster)
    assert thread.is_alive()
    assert cluster.status(answer["backend_id"])["status"] == "ready"
    assert cluster.call("POST", f"/ctrl/b/{answer['backend_id']}/hard-terminate").status == 200
    thread.join()
