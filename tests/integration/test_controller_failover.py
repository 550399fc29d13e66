"""A standby without the last commits takes over: no key is granted that may have been granted already."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiohttp import WSMsgType

from harness.controllers import Api, controller_api
from harness.fake_node import fake_drone, obedient_drone
from harness.real_parts import OwnPostgres
from plane.timing import FAILOVER_OBJECTION_S, KEY_LEASE_S

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@asynccontextmanager
async def primary_and_standby() -> AsyncIterator[tuple[OwnPostgres, OwnPostgres, asyncpg.Connection[Any]]]:
    """A primary, its asynchronous standby, and a connection to that."""
    primary = OwnPostgres("fsync=off")
    await asyncio.to_thread(primary.start)
    try:
        standby = await asyncio.to_thread(lambda: OwnPostgres("hot_standby=on", "fsync=off", standby_of=primary))
        await asyncio.to_thread(standby.start)
        try:
            follower = await asyncpg.connect(standby.url)
            yield primary, standby, follower
            await follower.close()
        finally:
            await asyncio.to_thread(standby.stop, signal.SIGINT)
    finally:
        await asyncio.to_thread(primary.stop, signal.SIGINT)


async def ask(api: Api, key: str) -> tuple[int, Any]:
    async with api.http.post(f"{api.base}/ctrl/connect", json={"key": {"name": key}, "spawn_config": IMAGE}) as answer:
        body = await answer.json()
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
        return answer.status, body


async def until_served(api: Api, key: str, backend: str) -> None:
    async with asyncio.timeout(30):
        while (answer := await ask(api, key))[0] != 200:
            assert answer[0] == 503
            await asyncio.sleep(0.05)
    assert answer[1]["backend_id"] == backend


async def test_no_key_is_granted_for_a_lease_after_a_lossy_failover() -> None:
    async with primary_and_standby() as (primary, standby, follower):
        hosts = ",".join(server.server.rpartition("@")[2] for server in (primary, standby))
        url = f"postgresql://postgres@{hosts}/postgres"
        async with controller_api(url) as one, controller_api(url) as two, obedient_drone(one.base):
            kept = (await one.connect(key={"name": "kept"}, spawn_config=IMAGE))["backend_id"]
            async with asyncio.timeout(20):
                while not await follower.fetchval("SELECT count(*) FROM backend WHERE last_status = 'ready'"):
                    await asyncio.sleep(0.05)
            # From here on the standby receives nothing.
            await follower.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await follower.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(20):
                while await follower.fetchval("SELECT count(*) FROM pg_stat_wal_receiver"):
                    await asyncio.sleep(0.05)
            await one.connect(key={"name": "lost"}, spawn_config=IMAGE)
            await asyncio.to_thread(primary.stop, signal.SIGQUIT)
            await follower.execute("SELECT pg_promote()")
            answers = []
            async with controller_api(url) as fresh, obedient_drone(fresh.base, "dr-new"):
                for api in (one, two, fresh):
                    await until_served(api, "kept", kept)
                end = time.monotonic() + FAILOVER_OBJECTION_S + 3
                while time.monotonic() < end:
                    answers += [await ask(api, key) for api in (one, two, fresh) for key in ("lost", "new")]
                    await asyncio.sleep(0.05)
                assert {status for status, _ in answers} == {503}
                row = await follower.fetchrow(
                    "SELECT extract(epoch FROM grants_after - now())::float8 AS refused_s, timeline FROM plane_clock"
                )
                assert row is not None
                assert FAILOVER_OBJECTION_S < row["refused_s"] <= KEY_LEASE_S
                assert row["timeline"].startswith("00000002 ")
                lease_s = await follower.fetchval(
                    "SELECT extract(epoch FROM expires_at - now())::float8 FROM backend_key"
                )
                assert KEY_LEASE_S - 30 < lease_s <= KEY_LEASE_S
                # A lease later all is as ever.
                await follower.execute("UPDATE plane_clock SET grants_after = now()")
                assert (await ask(one, "lost"))[0] == 200
                assert (await ask(fresh, "new"))[0] == 200
                assert (await ask(two, "kept"))[1]["backend_id"] == kept


async def test_controller_started_after_a_failover_grants_no_key() -> None:
    async with primary_and_standby() as (primary, standby, follower):
        async with controller_api(primary.url) as api, obedient_drone(api.base):
            kept = (await api.connect(key={"name": "kept"}, spawn_config=IMAGE))["backend_id"]
            async with asyncio.timeout(20):
                while not await follower.fetchval("SELECT count(*) FROM backend WHERE last_status = 'ready'"):
                    await asyncio.sleep(0.05)
        await asyncio.to_thread(primary.stop, signal.SIGQUIT)
        await follower.execute("SELECT pg_promote()")
        async with controller_api(standby.url) as api, obedient_drone(api.base):
            assert (await ask(api, "new"))[0] == 503
            await until_served(api, "kept", kept)
            async with asyncio.timeout(20):
                while not await follower.fetchval("SELECT grants_after FROM plane_clock"):
                    await asyncio.sleep(0.05)
            assert await follower.fetchval("SELECT grants_after > now() + interval '30 seconds' FROM plane_clock")
            assert (await ask(api, "new"))[0] == 503


async def test_server_with_older_files_grants_no_key_for_a_lease() -> None:
    """On the same timeline: as after a copy of its folder was put back."""
    server = OwnPostgres("fsync=off")
    await asyncio.to_thread(server.start)
    try:
        async with controller_api(server.url) as api, obedient_drone(api.base):
            kept = (await api.connect(key={"name": "kept"}, spawn_config=IMAGE))["backend_id"]
            await asyncio.to_thread(server.stop, signal.SIGINT)
            await asyncio.to_thread(server.copy_files)
            await asyncio.to_thread(server.start)
            # A restart alone costs new keys some seconds, and held ones nothing.
            await until_served(api, "kept", kept)
            assert (await ask(api, "lost"))[0] == 503
            async with asyncio.timeout(FAILOVER_OBJECTION_S + 5):
                while (await ask(api, "lost"))[0] != 200:
                    await asyncio.sleep(0.1)
            async with fake_drone(api.base, "dr-late") as late:
                await asyncio.to_thread(server.stop, signal.SIGINT)
                await asyncio.to_thread(server.restore_files)
                await asyncio.to_thread(server.start)
                # The server does not know its connection, so its heartbeats would count for nothing.
                async with asyncio.timeout(FAILOVER_OBJECTION_S):
                    while (await late.ws.receive()).type is not WSMsgType.CLOSE:
                        pass
            await until_served(api, "kept", kept)
            end = time.monotonic() + FAILOVER_OBJECTION_S + 3
            while time.monotonic() < end:
                assert (await ask(api, "lost"))[0] == 503
                await asyncio.sleep(0.05)
            observer = await asyncpg.connect(server.url)
            assert await observer.fetchval("SELECT grants_after > now() + interval '20 seconds' FROM plane_clock")
            await observer.close()
    finally:
        await asyncio.to_thread(server.stop, signal.SIGINT)
