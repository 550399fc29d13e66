"""Steps of the database's clock neither give away a held key nor hold a key for longer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness.controllers import Api, controller_api
from harness.fake_node import obedient_drone
from harness.real_parts import OwnPostgres

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@asynccontextmanager
async def steppable() -> AsyncIterator[tuple[OwnPostgres, asyncpg.Connection[Any]]]:
    server = OwnPostgres("fsync=off", own_clock=True)
    await asyncio.to_thread(server.start)
    try:
        connection = await asyncpg.connect(server.url)
        try:
            yield server, connection
        finally:
            await connection.close()
    finally:
        await asyncio.to_thread(server.stop, signal.SIGINT)


async def ask_for(api: Api, answers: list[tuple[bool, str]], until: asyncio.Event) -> None:
    while not until.is_set():
        answer = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        answers.append((answer["spawned"], answer["backend_id"]))
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("step_s", [130, 35, -3600])
async def test_clock_step_neither_expires_nor_extends_leases(step_s: int) -> None:
    async with (
        steppable() as (server, connection),
        controller_api(server.url) as one,
        controller_api(server.url) as two,
        obedient_drone(one.base, "dr-k"),
        obedient_drone(two.base, "dr-other"),
    ):
        first = await one.connect(key={"name": "k"}, spawn_config={**IMAGE, "lifetime_limit_seconds": 1000})
        # As if the lease had been taken 30 s ago.
        await connection.execute("UPDATE backend_key SET expires_at = expires_at - interval '30 seconds'")
        answers: list[tuple[bool, str]] = []
        enough = asyncio.Event()
        users = [asyncio.create_task(ask_for(api, answers, enough)) for api in (one, two)]
        await asyncio.sleep(2)
        server.set_clock(step_s)
        async with asyncio.timeout(30):
            while not await connection.fetchval("SELECT shifted_ms FROM plane_clock"):
                await asyncio.sleep(0.05)
        # Both controllers have found it by then, and the reaper and the sweeper have looked.
        await asyncio.sleep(12)
        enough.set()
        await asyncio.gather(*users)
        assert set(answers) == {(False, first["backend_id"])}
        assert await connection.fetchval("SELECT shifted_ms FROM plane_clock") == pytest.approx(step_s * 1000, abs=500)
        row = await connection.fetchrow(
            "SELECT last_status, extract(epoch FROM expires_at - now())::float8 AS lease_s,"
            " extract(epoch FROM expiration_time - now())::float8 AS life_s,"
            " extract(epoch FROM confirmed_at - now())::float8 AS confirmed_s,"
            " (SELECT min(extract(epoch FROM now() - last_heartbeat))::float8 FROM drone) AS silent_s"
            " FROM backend JOIN backend_key USING (id), plane_clock"
        )
        assert row is not None
        assert row["last_status"] == "ready"
        # Of 30 s that were left, more than 12 have passed; after a step back the lease may count from the step.
        assert 0 < row["lease_s"] < (20 if step_s > 0 else 50)
        assert 960 < row["life_s"] < 990
        assert -4 < row["confirmed_s"] < 1
        assert 0 <= row["silent_s"] < 20


async def test_leases_are_extended_once_after_an_unwatched_clock() -> None:
    async with steppable() as (server, connection):
        async with controller_api(server.url) as api, obedient_drone(api.base):
            backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        # Another machine's controller was there, and the clock may have stepped since.
        await connection.execute("UPDATE plane_clock SET boot_id = 'another'")
        server.set_clock(130)
        async with controller_api(server.url) as api, obedient_drone(api.base, "dr-new"):
            for _ in range(50):
                answer = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
                assert answer["backend_id"] == backend
            async with asyncio.timeout(30):
                while not await connection.fetchval("SELECT shifted_ms FROM plane_clock"):
                    await asyncio.sleep(0.05)
            answer = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
            assert answer["backend_id"] == backend
            assert await connection.fetchval("SELECT expires_at - now() < interval '61 seconds' FROM backend_key")
