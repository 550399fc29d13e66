"""A database that restarts under load, and controllers that hang in a transaction, do not block others."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from harness import failpoints
from harness.controllers import Api, controller_api
from harness.fake_node import obedient_drone
from harness.ports import free_port
from harness.postgres_relay import postgres_relay
from harness.real_parts import OwnPostgres
from plane.database.pool import open_database

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@contextmanager
def stopping_controller(url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A controller that stops (SIGSTOP) while its reaper's transaction is open."""
    command = [sys.executable, failpoints.__file__, failpoints.STOP_IN_REAPER]
    command += ["controller", "--db", url, "--port", str(free_port())]
    with log.open("wb") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state != "Z", "the controller has ended"
    return state == "T"


async def test_controller_that_hangs_while_reaping_blocks_no_other(postgres_url: str, tmp_path: Path) -> None:
    async with controller_api(postgres_url) as api, obedient_drone(api.base):
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '200 seconds'")
        with stopping_controller(postgres_url, tmp_path / "log") as hanging:
            async with asyncio.timeout(60):
                while not is_stopped(hanging):
                    await asyncio.sleep(0.05)
                # The reaper's own, of this database only; the event feed's is shared.
                held = """
                    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                    WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND datname = current_database()
                """
                assert await connection.fetchval(held) == 1
                async with controller_api(postgres_url) as api:
                    while (await api.call("GET", f"/pub/b/{backend}/status"))[1]["status"] != "terminated":
                        await asyncio.sleep(0.1)
            assert is_stopped(hanging)
    finally:
        await connection.close()


async def test_every_session_has_server_side_timeouts(postgres_url: str) -> None:
    async with open_database(postgres_url) as db:
        names = [
            "idle_in_transaction_session_timeout",
            "statement_timeout",
            "lock_timeout",
            "tcp_keepalives_idle",
            "tcp_keepalives_interval",
            "tcp_keepalives_count",
            "tcp_user_timeout",
        ]
        rows = await db.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])", names)
    assert {row["name"]: int(row["setting"]) > 0 for row in rows} == dict.fromkeys(names, True)


async def load(api: Api, failures: list[tuple[int, Any, Any]], until: asyncio.Event) -> int:
    """Connect over and over; returns how often that succeeded."""
    succeeded = 0
    while not until.is_set():
        async with api.http.post(f"{api.base}/ctrl/connect", json={"key": {"name": "k"}}) as answer:
            if answer.status == 200:
                succeeded += 1
            else:
                failures.append((answer.status, answer.headers.get("Retry-After"), await answer.json()))
    return succeeded


@pytest.mark.parametrize("fin_after_s", [0.0, 30.0])
async def test_controllers_survive_a_database_restart_under_load(fin_after_s: float) -> None:
    server = OwnPostgres()
    server.start()
    failures: list[tuple[int, Any, Any]] = []
    restarted = asyncio.Event()
    try:
        with capture_logs() as logs:
            async with (
                postgres_relay(server.url) as relay,
                controller_api(relay.url) as api,
                obedient_drone(api.base),
            ):
                await api.connect(key={"name": "k"}, spawn_config=IMAGE)
                relay.fin_after_s = fin_after_s
                users = [asyncio.create_task(load(api, failures, restarted)) for _ in range(16)]
                for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGINT):
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(server.stop, how)
                    await asyncio.to_thread(server.start)
                # Sooner than the late ends of the former connections.
                async with asyncio.timeout(25):
                    served = 0
                    while served < 100:
                        status, _ = await api.call("POST", "/ctrl/connect", {"key": {"name": "k"}})
                        served = served + 1 if status == 200 else 0
                restarted.set()
                assert sum(await asyncio.gather(*users)) > 0
                relay.fin_after_s = 0.0
        assert failures
        assert {(status, retry_after) for status, retry_after, _ in failures} == {(503, "1")}
        assert {body["kind"] for _, _, body in failures} == {"DatabaseError"}
        assert [entry for entry in logs if entry["log_level"] == "error"] == []
    finally:
        await asyncio.to_thread(server.stop, signal.SIGINT)


async def test_background_loop_survives_an_unexpected_error(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def failing(*_: object) -> None:
        nonlocal looks
        looks += 1
        raise KeyError("no such thing")

    monkeypatch.setattr("plane.controller.server.run_sweeper", failing)
    with capture_logs() as logs:
        async with controller_api(postgres_url) as api, asyncio.timeout(20):
            while looks < 2:
                await asyncio.sleep(0.05)
            assert (await api.call("GET", "/pub/health"))[0] == 200
    failed = [entry for entry in logs if entry["event"] == "background loop failed; restarting"]
    assert {(entry["loop"], entry["log_level"]) for entry in failed} == {("sweeper", "error")}
