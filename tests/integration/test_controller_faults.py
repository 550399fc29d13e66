"""Nodes and databases that fall silent, vanish or move: the controller notices, and continues."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs
from yarl import URL

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, VERSION, fake_drone, fake_proxy, obedient_drone
from harness.real_parts import OwnPostgres
from plane import timing

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


async def until_status(api: Api, path: str, wanted: int, limit_s: float = 30) -> Any:
    async with asyncio.timeout(limit_s):
        while True:
            status, body = await api.call("GET", path)
            if status == wanted:
                return body
            await asyncio.sleep(0.05)


async def nodes_of(api: Api) -> list[dict[str, Any]]:
    _, state = await api.call("GET", f"/ctrl/c/{CLUSTER}/state")
    return [drone["node"]["name"] for drone in state["drones"]] + [proxy["name"] for proxy in state["proxies"]]


async def until_no_nodes(api: Api) -> None:
    async with asyncio.timeout(20):
        while await nodes_of(api):
            await asyncio.sleep(0.05)


async def until_at_home(api: Api, controller: str) -> None:
    """Return once the one proxy is connected to that controller."""
    async with asyncio.timeout(20):
        while True:
            _, state = await api.call("GET", f"/ctrl/c/{CLUSTER}/state")
            if [proxy["controller"] for proxy in state["proxies"]] == [controller]:
                return
            await asyncio.sleep(0.02)


async def test_silent_node_is_disconnected(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "NODE_HANDSHAKE_TIMEOUT_S", 0.3)
    async with (
        controller_api(postgres_url) as api,
        api.http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/proxy-socket") as ws,
    ):
        async with asyncio.timeout(10):
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert await nodes_of(api) == []


async def test_half_open_connection_is_detected(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "NODE_PING_INTERVAL_S", 0.4)
    async with controller_api(postgres_url) as api:
        # The peer is there for TCP, and answers no ping: as one whose network has gone.
        async with api.http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/proxy-socket", autoping=False) as ws:
            await ws.send_str(json.dumps({"version": VERSION, "name": "px-gone"}))
            await ws.receive_str()
            async with asyncio.timeout(10):
                while await nodes_of(api) != [{"Proxy": "px-gone"}]:
                    await asyncio.sleep(0.02)
            await until_no_nodes(api)
        # One that answers stays.
        async with fake_proxy(api.base, "px-here") as proxy:
            # Its library responds to pings while it waits for a message: here for several times the limit.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await proxy.receive("BackendRemoved")
            assert await nodes_of(api) == [{"Proxy": "px-here"}]


async def test_newer_node_of_the_same_name_wins_across_controllers(postgres_url: str) -> None:
    async with controller_api(postgres_url) as one, controller_api(postgres_url) as two:
        async with fake_proxy(one.base, "px-x") as older:
            await until_at_home(one, older.controller["name"])
            async with fake_proxy(two.base, "px-x") as newer:
                await until_at_home(one, newer.controller["name"])
            await until_no_nodes(one)
        # The older one's end must not clear what the newer one has registered.
        async with AsyncExitStack() as stack:
            older = await stack.enter_async_context(fake_proxy(one.base, "px-y"))
            await until_at_home(one, older.controller["name"])
            newer = await stack.enter_async_context(fake_proxy(two.base, "px-y"))
            await until_at_home(one, newer.controller["name"])
            await older.ws.close(code=aiohttp.WSCloseCode.GOING_AWAY)
            await asyncio.sleep(0.3)
            assert await nodes_of(one) == [{"Proxy": "px-y"}]


async def test_unstorable_message_is_dropped_and_the_connection_continues(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone, fake_proxy(api.base) as proxy:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        await drone.send("RenewKey", {"backend": "a\0b", "local_time": 1})
        await drone.send("AckAction", {"action_id": "a\0b"})
        await drone.send("Heartbeat", {"local_time": 2**62})
        await drone.send(
            "BackendEvent", {"event_id": 1, "backend_id": "\0", "state": {"status": "loading"}, "timestamp": 1}
        )
        ended = {"status": "terminated", "last_status": "loading", "exit_code": 1, "message": "out\0put"}
        await drone.send("BackendEvent", {"event_id": 2, "backend_id": backend, "state": ended, "timestamp": 1})
        assert await drone.receive("AckEvent") == {"event_id": 2}
        _, entry = await api.call("GET", f"/pub/b/{backend}/status")
        assert entry["message"] == "out\N{REPLACEMENT CHARACTER}put"
        await proxy.send("RouteInfoRequest", {"token": "\0"})
        await proxy.send("KeepAlive", "\0")
        await proxy.send("RouteInfoRequest", {"token": "unknown"})
        assert (await proxy.receive("RouteInfoResponse"))["route_info"] is None


@pytest.mark.parametrize("pool", ["x" * 256, "a%00b"])
async def test_unstorable_pool_closes_the_connection(postgres_url: str, pool: str) -> None:
    with capture_logs() as logs:
        async with (
            controller_api(postgres_url) as api,
            api.http.ws_connect(URL(f"{api.base}/ctrl/c/{CLUSTER}/drone-socket?pool={pool}", encoded=True)) as ws,
        ):
            await ws.send_str(json.dumps({"version": VERSION, "name": "dr-x"}))
            await ws.receive_str()
            async with asyncio.timeout(10):
                assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    server = OwnPostgres()
    server.start()
    yield server
    server.stop(signal.SIGINT)


async def test_controller_recovers_with_its_database(own_postgres: OwnPostgres) -> None:
    async with controller_api(own_postgres.url) as api, obedient_drone(api.base) as spawned:
        await api.connect(key={"name": "before"}, spawn_config=IMAGE)
        await asyncio.to_thread(own_postgres.stop, signal.SIGQUIT)
        for method, path, body in (
            ("GET", "/pub/health", None),
            ("GET", "/ctrl/status", None),
            ("GET", f"/ctrl/c/{CLUSTER}/state", None),
            ("GET", "/pub/b/x/status", None),
            ("POST", "/ctrl/connect", {"key": {"name": "before"}}),
            ("POST", "/ctrl/connect", {"key": {"name": "new"}, "spawn_config": IMAGE}),
        ):
            start = time.monotonic()
            status, answer = await api.call(method, path, body)
            wanted = (500, "Other") if path in ("/pub/health", "/ctrl/status") else (503, "DatabaseError")
            assert (status, answer["kind"]) == wanted
            assert time.monotonic() - start < 6
        await asyncio.to_thread(own_postgres.start)
        await until_status(api, "/pub/health", 200)
        assert (await api.connect(key={"name": "before"}))["spawned"] is False
    # Nodes come back by themselves; the fake one has no such habit.
    async with controller_api(own_postgres.url) as api, obedient_drone(api.base) as spawned:
        answer = await api.connect_once_granted(key={"name": "after"}, spawn_config=IMAGE)
        async with asyncio.timeout(10):
            while answer["backend_id"] not in spawned:
                await asyncio.sleep(0.02)


async def test_event_bus_survives_a_database_restart(own_postgres: OwnPostgres) -> None:
    async with controller_api(own_postgres.url) as one, controller_api(own_postgres.url) as two:
        await asyncio.to_thread(own_postgres.stop, signal.SIGINT)
        await asyncio.to_thread(own_postgres.start)
        await until_status(one, "/pub/health", 200)
        await until_status(two, "/pub/health", 200)
        # What one controller writes, the other's drone hears of.
        async with fake_drone(one.base) as drone:
            answer = await two.connect_once_granted(spawn_config=IMAGE)
            assert (await drone.receive("Action"))["backend_id"] == answer["backend_id"]


@asynccontextmanager
async def primary_and_standby() -> AsyncIterator[tuple[OwnPostgres, OwnPostgres]]:
    primary = OwnPostgres()
    await asyncio.to_thread(primary.start)
    try:
        standby = await asyncio.to_thread(lambda: OwnPostgres("hot_standby=on", standby_of=primary))
        await asyncio.to_thread(standby.start)
        try:
            yield primary, standby
        finally:
            await asyncio.to_thread(standby.stop, signal.SIGINT)
    finally:
        await asyncio.to_thread(primary.stop, signal.SIGINT)


async def test_controller_follows_a_failover_to_another_host() -> None:
    async with primary_and_standby() as (primary, standby):
        hosts = ",".join(server.server.rpartition("@")[2] for server in (standby, primary))
        url = f"postgresql://postgres@{hosts}/postgres"
        async with controller_api(url) as api:
            async with obedient_drone(api.base):
                backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
                follower = await asyncpg.connect(standby.url)
                async with asyncio.timeout(20):
                    while not await follower.fetchval("SELECT count(*) FROM backend WHERE last_status = 'ready'"):
                        await asyncio.sleep(0.05)
            await asyncio.to_thread(primary.stop, signal.SIGQUIT)
            assert (await api.call("GET", "/pub/health"))[0] == 500
            await follower.execute("SELECT pg_promote()")
            await follower.close()
            await until_status(api, "/pub/health", 200)
            assert (await api.connect(key={"name": "k"}))["backend_id"] == backend
            async with fake_drone(api.base) as drone:
                # Controllers have some seconds to say that the new primary lacks commits.
                async with asyncio.timeout(30):
                    while (answer := await api.call("POST", "/ctrl/connect", {"spawn_config": IMAGE}))[0] != 200:
                        assert answer[0] == 503
                        await asyncio.sleep(0.1)
                backend = answer[1]["backend_id"]
                # What was not acknowledged before the failover comes first, if anything.
                while (await drone.receive("Action"))["backend_id"] != backend:
                    pass
