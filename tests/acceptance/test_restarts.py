"""Parts that die and come back: backends run on, open tunnels are not cut, and no event is lost."""

from __future__ import annotations

import functools
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import Cluster, exposed, free_port, separate_parts, until
from harness.program import program
from harness.relay import Relay


def still_echoes(tunnel: socket.socket, text: bytes) -> None:
    tunnel.sendall(text)
    assert tunnel.recv(100) == text


def is_healthy(cluster: Cluster, controller: int) -> bool:
    return cluster.call("GET", "/pub/health", controller=controller).status == 200


def may_spawn(cluster: Cluster) -> bool:
    request = {"spawn_config": {"executable": cluster.executable()}}
    return cluster.call("POST", "/ctrl/connect", request).status == 200


def new_work_is_done(cluster: Cluster) -> None:
    until(functools.partial(may_spawn, cluster))
    assert cluster.get(cluster.spawn("new")["url"]).status == 200


def test_the_controller_is_killed_and_comes_back(postgres_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(separate_parts(postgres_url, tmp_path, controllers=1))
        kept = cluster.spawn("kept")
        ends = cluster.spawn("ends")
        cluster.until_status(ends["backend_id"], "ready")
        tunnel = stack.enter_context(cluster.tunnel(kept["url"]))
        still_echoes(tunnel, b"before")
        assert cluster.get(ends["url"]).status == 200

        cluster.programs["controller-0"].stop(signal.SIGKILL)
        still_echoes(tunnel, b"without a controller")
        # Known tokens work on; an event happens that nobody can be told of yet.
        assert cluster.get(kept["url"]).status == 200
        assert cluster.get(ends["url"], "exit?7").status == 502

        port = cluster.control_urls[0].rsplit(":", 1)[1]
        name = f"localhost:{cluster.proxy_port}"
        arguments = ["controller", "--db", postgres_url, "--port", port, "--default-cluster", name]
        stack.enter_context(program(arguments, tmp_path, "controller-again")).says("controller listening")
        still_echoes(tunnel, b"with a new one")
        entry = cluster.until_status(ends["backend_id"], "terminated")
        assert "exited with code 7" in entry["message"]
        assert cluster.status(kept["backend_id"])["status"] == "ready"
        new_work_is_done(cluster)


def test_connections_of_the_nodes_are_cut(postgres_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(separate_parts(postgres_url, tmp_path, controllers=1))
        relay = Relay(int(cluster.control_urls[0].rsplit(":", 1)[1]))
        stack.callback(relay.close)
        # A drone and a proxy of another cluster, behind a relay.
        port = free_port()
        name = f"localhost:{port}"
        nodes = ["--controller-url", f"http://127.0.0.1:{relay.port}", "--cluster", name]
        drone = stack.enter_context(
            program(["drone", *nodes, "--runtime", "process", *exposed()], tmp_path, "cut-drone")
        )
        proxy = stack.enter_context(
            program(["proxy", *nodes, "--host", "127.0.0.1", "--http-port", str(port)], tmp_path, "cut-proxy")
        )
        drone.says("connected to controller")
        proxy.says("connected to controller")
        behind = Cluster(cluster.control_urls, port)
        until(lambda: behind.call("GET", f"/ctrl/c/{name}/state").json()["drones"])
        answer = behind.spawn("k", spawn={"cluster": name})
        tunnel = stack.enter_context(behind.tunnel(answer["url"]))
        for number in range(2, 4):
            relay.cut()
            still_echoes(tunnel, b"while the nodes are cut off")
            drone.says("connected to controller", times=number)
            proxy.says("connected to controller", times=number)
        assert behind.status(answer["backend_id"])["status"] == "ready"
        assert behind.get(behind.connect(key={"name": "k"})["url"]).status == 200
        again = behind.spawn("other", spawn={"cluster": name})
        assert behind.get(again["url"]).status == 200


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[real_parts.OwnPostgres]:
    """A server that this test may kill."""
    server = real_parts.OwnPostgres()
    server.start()
    yield server
    server.stop(signal.SIGINT)


def test_postgresql_restarts(own_postgres: real_parts.OwnPostgres, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(separate_parts(own_postgres.url, tmp_path, controllers=2))
        kept, ends = cluster.spawn("kept"), cluster.spawn("ends")
        tunnel = stack.enter_context(cluster.tunnel(kept["url"]))
        assert cluster.get(ends["url"]).status == 200

        own_postgres.stop(signal.SIGQUIT)
        still_echoes(tunnel, b"without a database")
        assert cluster.get(kept["url"]).status == 200
        health = cluster.call("GET", "/pub/health")
        assert (health.status, health.json()["message"]) == (500, "Database health check failed")
        refused = cluster.call("POST", "/ctrl/connect", {"key": {"name": "kept"}})
        assert (refused.status, refused.json()["kind"]) == (503, "DatabaseError")
        assert cluster.get(ends["url"], "exit?7").status == 502

        own_postgres.start()
        for number in range(2):
            until(functools.partial(is_healthy, cluster, number))
        still_echoes(tunnel, b"with it again")
        assert "exited with code 7" in cluster.until_status(ends["backend_id"], "terminated")["message"]
        assert cluster.status(kept["backend_id"])["status"] == "ready"
        new_work_is_done(cluster)


def test_programs_end_cleanly(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path) as cluster:
        backend = cluster.spawn("k")["backend_id"]
        pid = cluster.get(cluster.connect(key={"name": "k"})["url"]).json()["facts"]["pid"]
        assert pid
        for part, number in (("proxy", signal.SIGTERM), ("drone", signal.SIGINT)):
            assert cluster.programs[part].stop(number) == 0
        entry = cluster.until_status(backend, "terminated", limit_s=5)
        assert entry["termination_reason"] == "lost"
        for part in ("controller-0", "controller-1"):
            assert cluster.programs[part].stop() == 0
            assert "Traceback" not in cluster.programs[part].log.read_text()


def test_a_killed_drone_leaves_nothing_and_comes_back_if_so_asked(postgres_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(separate_parts(postgres_url, tmp_path))
        marker = f"98765.{free_port()}"
        answer = cluster.connect(key={"name": "k"}, spawn_config={"executable": {"command": ["sleep", marker]}})
        cluster.until_status(answer["backend_id"], "waiting")
        # What bubblewrap has not set up yet is ended by the drone's next start.
        until(lambda: subprocess.run(["pgrep", "-f", f"^[^ ]*sleep {marker}"], check=False, capture_output=True).stdout)
        cluster.programs["drone"].stop(signal.SIGKILL)
        until(lambda: subprocess.run(["pgrep", "-f", marker], check=False, capture_output=True).returncode == 1)
        name = f"localhost:{cluster.proxy_port}"
        arguments = ["drone", "--controller-url", cluster.control_urls[1], "--cluster", name, "--name", "dr-test"]
        arguments += ["--db", str(tmp_path / "drone.sqlite"), "--runtime", "process", "--terminate-on-exit"]
        stack.enter_context(program(arguments, tmp_path, "drone-again")).says("connected to controller")
        entry = cluster.until_status(answer["backend_id"], "terminated")
        assert entry["message"] == "its drone was restarted"
