"""The Docker engine restarts, dies and hangs while backends run: each ends in `terminated`, and none twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.clusters import Cluster, separate_parts
from harness.docker_parts import OwnDocker, own_docker

pytestmark = pytest.mark.xdist_group("docker")


@contextmanager
def engine_and_cluster(db: str, folder: Path, *, live_restore: bool) -> Iterator[tuple[OwnDocker, Cluster]]:
    with own_docker(**{"live-restore": live_restore}) as engine:
        engine.tiny_image("tiny:v1")
        docker = (engine.socket, "tiny:v1")
        with separate_parts(db, folder, controllers=1, docker=docker, drone=("--terminate-on-exit",)) as cluster:
            yield engine, cluster


def ends_once(cluster: Cluster, backend: str) -> dict[str, object]:
    entry = cluster.until_status(backend, "terminated")
    statuses = [state["status"] for state in cluster.history(backend)]
    assert statuses.count("terminated") == 1
    return entry


def test_a_restart_ends_backends_and_new_ones_start(postgres_url: str, tmp_path: Path) -> None:
    with engine_and_cluster(postgres_url, tmp_path, live_restore=False) as (engine, cluster):
        backends = [cluster.spawn(f"k{number}")["backend_id"] for number in range(3)]
        for backend in backends:
            cluster.until_status(backend, "ready")
        engine.stop()
        engine.start()
        for backend in backends:
            assert ends_once(cluster, backend)["exit_error"] is True
        again = cluster.spawn("k0")
        assert again["spawned"] is True
        cluster.until_status(again["backend_id"], "ready")


def test_with_live_restore_backends_survive_the_engine(postgres_url: str, tmp_path: Path) -> None:
    with engine_and_cluster(postgres_url, tmp_path, live_restore=True) as (engine, cluster):
        kept, told, died = (cluster.spawn(name) for name in ("kept", "told", "died"))
        for backend in (kept, told, died):
            cluster.until_status(backend["backend_id"], "ready")
        pid = engine.inspect(f"plane-{died['backend_id']}")["State"]["Pid"]
        engine.stop(signal.SIGKILL)
        # One ends while no engine is there, one is told to.
        os.kill(pid, signal.SIGKILL)
        cluster.call("POST", f"/ctrl/b/{told['backend_id']}/soft-terminate")
        cluster.until_status(told["backend_id"], "terminating")
        engine.start()
        assert ends_once(cluster, died["backend_id"])["exit_error"] is True
        ends_once(cluster, told["backend_id"])
        assert cluster.status(kept["backend_id"])["status"] == "ready"
        cluster.call("POST", f"/ctrl/b/{kept['backend_id']}/hard-terminate")
        ends_once(cluster, kept["backend_id"])


def test_an_engine_that_hangs(postgres_url: str, tmp_path: Path) -> None:
    with engine_and_cluster(postgres_url, tmp_path, live_restore=False) as (engine, cluster):
        kept, soft, hard = (cluster.spawn(name) for name in ("kept", "soft", "hard"))
        for backend in (kept, soft, hard):
            cluster.until_status(backend["backend_id"], "ready")
        engine.freeze()
        cluster.call("POST", f"/ctrl/b/{soft['backend_id']}/soft-terminate")
        cluster.call("POST", f"/ctrl/b/{hard['backend_id']}/hard-terminate")
        cluster.until_status(hard["backend_id"], "hard-terminating")
        new = cluster.spawn("new")
        # The proxy and the drone need no engine for what runs.
        assert cluster.get(kept["url"]).status in (200, 404)
        engine.thaw()
        ends_once(cluster, soft["backend_id"])
        ends_once(cluster, hard["backend_id"])
        cluster.until_status(new["backend_id"], "ready")
        assert cluster.status(kept["backend_id"])["status"] == "ready"
