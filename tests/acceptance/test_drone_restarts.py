"""A drone that is stopped, killed or upgraded takes over what still runs; users notice nothing."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters import AS_DRONE, Cluster, separate_parts


@pytest.fixture(params=["process", "bubblewrap", "docker"])
def adopting(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose backends outlive their drone."""
    docker = None
    if request.param == "docker":
        docker = (request.getfixturevalue("docker_engine"), request.getfixturevalue("docker_image"))
    with separate_parts(postgres_url, tmp_path, controllers=1, docker=docker, drone=AS_DRONE) as cluster:
        cluster.isolation = {"process": "none", "bubblewrap": "bubblewrap"}.get(request.param)
        yield cluster


def still_echoes(tunnel: socket.socket, text: bytes) -> None:
    tunnel.sendall(text)
    assert tunnel.recv(100) == text


def pid_of(cluster: Cluster, url: str) -> int:
    return int(cluster.get(url).json()["facts"]["pid"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_backends_survive_their_drone(adopting: Cluster, how: signal.Signals) -> None:
    kept = adopting.spawn("kept", STARTED=str(time.time()))
    ends, ended = adopting.spawn("ends"), adopting.spawn("ended", MODE="graceful")
    for backend in (kept, ends, ended):
        adopting.until_status(backend["backend_id"], "ready")
    pid, session = pid_of(adopting, kept["url"]), adopting.get(kept["url"]).json()["session"]
    with adopting.tunnel(kept["url"]) as tunnel:
        still_echoes(tunnel, b"before")
        status = adopting.programs["drone"].stop(how)
        assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        still_echoes(tunnel, b"without a drone")
        assert pid_of(adopting, kept["url"]) == pid
        # One ends while nobody watches, one is told to end while its drone is away.
        assert adopting.get(ends["url"], "exit?7").status == 502
        adopting.call("POST", f"/ctrl/b/{ended['backend_id']}/soft-terminate")

        drone = adopting.start_again("drone")
        drone.says("connected to controller", times=2)
        entry = adopting.until_status(ends["backend_id"], "terminated")
        assert "exited with code 7" in entry["message"]
        assert "the last words" in entry["message"]
        assert "exit_code" not in entry or entry["exit_error"] is True
        assert adopting.until_status(ended["backend_id"], "terminated")["exit_error"] is False
        assert adopting.status(kept["backend_id"])["status"] == "ready"
        still_echoes(tunnel, b"with a new one")
        again = adopting.connect(key={"name": "kept"})
        assert (again["backend_id"], again["spawned"]) == (kept["backend_id"], False)
        assert adopting.get(again["url"]).json()["session"] == session
        # It can be ended as ever, and that is told once.
        adopting.call("POST", f"/ctrl/b/{kept['backend_id']}/hard-terminate")
        history = adopting.history(kept["backend_id"])
        assert [entry["status"] for entry in history][-3:] == ["ready", "hard-terminating", "terminated"]


def test_restarts_one_after_the_other(adopting: Cluster) -> None:
    backend = adopting.spawn("k")
    adopting.until_status(backend["backend_id"], "ready")
    pid = pid_of(adopting, backend["url"])
    for times in range(2, 5):
        adopting.programs["drone"].stop(signal.SIGKILL)
        adopting.start_again("drone").says("connected to controller", times=times)
        assert pid_of(adopting, backend["url"]) == pid
    new = adopting.spawn("new")
    assert adopting.get(new["url"]).status == 200
    assert adopting.status(backend["backend_id"])["status"] == "ready"


def test_what_was_being_started_is_started(adopting: Cluster) -> None:
    backends = [adopting.spawn(f"k{number}") for number in range(4)]
    adopting.programs["drone"].stop(signal.SIGKILL)
    adopting.start_again("drone")
    for backend in backends:
        adopting.until_status(backend["backend_id"], "ready")
        assert adopting.get(backend["url"]).json()["session"]["ID"] == backend["backend_id"]


def test_terminate_on_exit_ends_what_a_drone_has_left(adopting: Cluster, tmp_path: Path) -> None:
    backend = adopting.spawn("k")
    adopting.until_status(backend["backend_id"], "ready")
    adopting.programs["drone"].stop(signal.SIGKILL)
    adopting.arguments_of["drone"] += ("--terminate-on-exit",)
    adopting.start_again("drone")
    assert adopting.until_status(backend["backend_id"], "terminated")["message"] == "its drone was restarted"
    second = adopting.spawn("k")
    adopting.until_status(second["backend_id"], "ready")
    assert adopting.programs["drone"].stop() == 0
    assert adopting.until_status(second["backend_id"], "terminated")["termination_reason"] == "lost"
