"""Whole clusters whose database's clock steps, or whose standby takes over: an outside observer sees no key twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness.clusters import AS_DRONE, Cluster, separate_parts, until
from harness.observer import OBSERVED, lives_seen, overlaps
from harness.real_parts import OwnPostgres

DRONE = ("--terminate-on-exit", *AS_DRONE)


def spawn(cluster: Cluster, lives: Path) -> dict[str, Any]:
    executable = cluster.executable(CODE=OBSERVED, LIVES=str(lives)) | {"isolation": "none"}
    return cluster.connect(key={"name": "k"}, spawn_config={"executable": executable})


@contextmanager
def running(*servers: OwnPostgres) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.stop(signal.SIGINT)


async def query(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("step_s", [130, 35, -3600])
async def test_no_key_has_two_processes_after_a_step_of_the_clock(step_s: int, tmp_path: Path) -> None:
    server = OwnPostgres("fsync=off", own_clock=True)
    server.start()
    lives = tmp_path / "lives"
    with running(server), separate_parts(server.url, tmp_path, drone=DRONE) as cluster:
        first = spawn(cluster, lives)
        cluster.until_status(first["backend_id"], "ready")
        server.set_clock(step_s)
        end = time.monotonic() + 8
        while time.monotonic() < end:
            assert spawn(cluster, lives)["backend_id"] == first["backend_id"]
        assert cluster.status(first["backend_id"])["status"] == "ready"
        # The key changes hands as ever.
        cluster.call("POST", f"/ctrl/b/{first['backend_id']}/hard-terminate")
        cluster.until_status(first["backend_id"], "terminated")
        second = spawn(cluster, lives)
        cluster.until_status(second["backend_id"], "ready")
        cluster.call("POST", f"/ctrl/b/{second['backend_id']}/hard-terminate")
        cluster.until_status(second["backend_id"], "terminated")
        assert await query(server.url, "SELECT count(*) FROM backend WHERE last_status <> 'terminated'") == 0
        assert len(lives_seen(lives)) == 2
        assert overlaps(lives) == []


async def test_no_key_has_two_processes_after_a_failover_that_lost_its_commit(tmp_path: Path) -> None:
    primary = OwnPostgres("fsync=off")
    primary.start()
    standby = OwnPostgres("hot_standby=on", "fsync=off", standby_of=primary)
    standby.start()
    lives = tmp_path / "lives"
    hosts = ",".join(server.server.rpartition("@")[2] for server in (primary, standby))
    with (
        running(standby, primary),
        separate_parts(f"postgresql://postgres@{hosts}/postgres", tmp_path, drone=DRONE) as cluster,
    ):
        await query(standby.url, "ALTER SYSTEM SET primary_conninfo = ''")
        await query(standby.url, "SELECT pg_reload_conf()")
        while await query(standby.url, "SELECT count(*) FROM pg_stat_wal_receiver"):
            time.sleep(0.05)
        lost = spawn(cluster, lives)["backend_id"]
        cluster.until_status(lost, "ready")
        primary.stop(signal.SIGQUIT)
        await query(standby.url, "SELECT pg_promote()")
        executable = cluster.executable(CODE=OBSERVED, LIVES=str(lives)) | {"isolation": "none"}
        body = {"key": {"name": "k"}, "spawn_config": {"executable": executable}}
        answers: list[int] = []

        def is_granted() -> bool:
            answer = cluster.call("POST", "/ctrl/connect", body, controller=len(answers))
            answers.append(answer.status)
            if answer.status == 200:
                cluster.spawned.append(answer.json()["backend_id"])
                return True
            time.sleep(0.2)
            return False

        until(is_granted, 120)
        assert set(answers[:-1]) <= {503, 500}
        cluster.until_status(cluster.spawned[-1], "ready")
        cluster.call("POST", f"/ctrl/b/{cluster.spawned[-1]}/hard-terminate")
        cluster.until_status(cluster.spawned[-1], "terminated")
        assert await query(standby.url, "SELECT count(*) FROM backend WHERE last_status <> 'terminated'") == 0
        assert len(lives_seen(lives)) == 2
        assert overlaps(lives) == []
