"""When nobody is connected any more, the process is stopped; a silent tunnel and a long download are connections."""

from __future__ import annotations

import threading
import time

from harness.clusters import Answer, Cluster

MAX_IDLE_S = 2


def test_an_idle_process_is_gone_soon(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})
    assert cluster.get(answer["url"]).status == 200
    entry = cluster.until_status(answer["backend_id"], "terminated", limit_s=MAX_IDLE_S + 6)
    assert entry["termination_reason"] == "swept"
    assert cluster.get(answer["url"]).status == 410


def test_a_tunnel_without_a_byte_of_traffic_keeps_it_alive(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})
    backend = answer["backend_id"]
    with cluster.tunnel(answer["url"]) as tunnel:
        time.sleep(MAX_IDLE_S + 12)
        assert cluster.status(backend)["status"] == "ready"
        tunnel.sendall(b"still here")
        assert tunnel.recv(100) == b"still here"
    closed_at = time.monotonic()
    cluster.until_status(backend, "terminated")
    assert time.monotonic() - closed_at < MAX_IDLE_S + 6


def test_a_long_download_keeps_it_alive(cluster: Cluster) -> None:
    answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S})
    download: list[Answer] = []
    seconds = MAX_IDLE_S + 12
    thread = threading.Thread(target=lambda: download.append(cluster.get(answer["url"], f"trickle?{seconds}")))
    thread.start()
    time.sleep(seconds - 2)
    assert cluster.status(answer["backend_id"])["status"] == "ready"
    thread.join()
    assert download[0].status == 200
    assert len(download[0].body) > seconds * 5
