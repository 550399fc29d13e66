"""Thousands of streams and nodes, and readers that stall, on one controller."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
from bench.load import Watcher

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, VERSION, fake_drone, fake_proxy, obedient_drone
from plane.controller.api.status_entries import _framed
from plane.settings import ControllerLimits

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
STREAMS, NODES = 5_000, 2_000
LIMIT_S = 60


def place(api: Api) -> tuple[str, int]:
    parts = urlsplit(api.base)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def test_five_thousand_streams_receive_every_state_once_and_end(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backends = [(await api.connect(spawn_config=IMAGE))["backend_id"] for _ in range(5)]
        watchers = [await Watcher.open(*place(api), backends[number % 5]) for number in range(STREAMS)]
        async with asyncio.timeout(LIMIT_S):
            # Some join while states change.
            for event_id, backend in enumerate(backends):
                for step, state in enumerate(
                    (
                        {"status": "loading"},
                        {"status": "ready", "address": "127.0.0.1:1"},
                        {"status": "terminated", "last_status": "ready"},
                    )
                ):
                    content = {"event_id": event_id * 3 + step, "backend_id": backend, "state": state, "timestamp": 1}
                    await drone.send("BackendEvent", content)
            await asyncio.gather(*(watcher.ended() for watcher in watchers))
        wanted = ["scheduled", "loading", "ready", "terminated"]
        assert all(watcher.statuses() == wanted for watcher in watchers)
        for watcher in watchers:
            watcher.close()


async def test_two_thousand_nodes_are_served(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        obedient_drone(api.base),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        sockets = []
        try:
            async with asyncio.timeout(LIMIT_S):
                for start in range(0, NODES, 100):
                    sockets += await asyncio.gather(*(node(http, api, number) for number in range(start, start + 100)))
                for ws in sockets:
                    await ws.send_str(json.dumps({"KeepAlive": "unknown"}))
                answers = await asyncio.gather(*(ws.receive_str() for ws in sockets))
                assert all(json.loads(answer) == {"BackendRemoved": {"backend": "unknown"}} for answer in answers)
                # One more backend's end is told to all of them.
                backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
                await api.call("POST", f"/ctrl/b/{backend}/hard-terminate")
                answers = await asyncio.gather(*(ws.receive_str() for ws in sockets))
                assert all(json.loads(answer) == {"BackendRemoved": {"backend": backend}} for answer in answers)
        finally:
            await asyncio.gather(*(ws.close() for ws in sockets))


async def node(http: aiohttp.ClientSession, api: Api, number: int) -> Any:
    ws = await http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/proxy-socket")
    await ws.send_str(json.dumps({"version": VERSION, "name": f"px-{number}"}))
    await ws.receive_str()
    return ws


async def test_stalled_reader_is_dropped_and_a_live_one_is_not(
    postgres_url: str,
) -> None:
    async with (
        controller_api(postgres_url, limits=ControllerLimits(stream_write_s=0.5)) as api,
        fake_drone(api.base) as drone,
    ):
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        live = await Watcher.open(*place(api), backend)
        await live.saw("scheduled")
        stalled = await Watcher.open(*place(api), backend)
        await stalled.saw("scheduled")
        stalled.stall()
        # More than the buffers between the two hold.
        ended = {"status": "terminated", "last_status": "scheduled", "message": "x" * 12_000_000}
        await drone.send("BackendEvent", {"event_id": 1, "backend_id": backend, "state": ended, "timestamp": 1})
        async with asyncio.timeout(LIMIT_S):
            await live.ended()
            assert live.statuses() == ["scheduled", "terminated"]
            # Its connection has been cut: what it reads now ends before the stream does.
            await asyncio.sleep(1)
            stalled.go_on()
            await stalled.lost()
        assert stalled.statuses() != ["scheduled", "terminated"]
        live.close()


async def test_idle_stream_sends_keepalives(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url, limits=ControllerLimits(stream_keep_alive_s=0.1)) as api,
        fake_drone(api.base),
        api.http.get(f"{api.base}/pub/b/unknown/status-stream") as answer,
        asyncio.timeout(LIMIT_S),
    ):
        for _ in range(3):
            assert await answer.content.readuntil(b"\n\n") == b":\n\n"


async def test_reader_that_receives_no_keepalive_is_dropped(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Large ones, so that some fill what is between the two.
    monkeypatch.setattr("plane.controller.api.status_stream.KEEP_ALIVE", _framed(0, b":" + b"x" * 2_000_000 + b"\n\n"))
    limits = ControllerLimits(stream_keep_alive_s=0.2)
    async with controller_api(postgres_url, limits=limits) as api, asyncio.timeout(LIMIT_S):
        others = await subscribers(api)
        live = await Watcher.open(*place(api), "unknown")
        stalled = await Watcher.open(*place(api), "unknown")
        await subscribers(api, others + 2)
        stalled.stall()
        await subscribers(api, others + 1)
        stalled.go_on()
        await stalled.lost()
        live.close()


async def subscribers(api: Api, wanted: int | None = None) -> int:
    """How many hear of the controller's events, once it is ``wanted``."""
    while True:
        _, text = await api.call("GET", "/metrics")
        found = re.search(r"^plane_event_subscribers (\d+)", text, re.M)
        assert found
        if wanted in (None, int(found[1])):
            return int(found[1])
        await asyncio.sleep(0.05)


async def test_slow_subscriber_is_disconnected_and_others_are_not(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url, limits=ControllerLimits(queued_events=20)) as api,
        obedient_drone(api.base) as spawned,
        fake_proxy(api.base) as proxy,
    ):
        sql = await asyncpg.connect(postgres_url)
        # A thousand states in one moment: proxies hear of all of them, and this one's place in the queue is too small.
        emit = "SELECT plane_emit('backend_state', 'x', $1::jsonb) FROM generate_series(1, 1000)"
        await sql.execute(emit, '{"status": "ready"}')
        await sql.close()
        async with asyncio.timeout(LIMIT_S):
            message = await proxy.ws.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
            answer = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
            while answer["backend_id"] not in spawned:
                await asyncio.sleep(0.02)
        async with fake_proxy(api.base) as proxy:
            await proxy.send("RouteInfoRequest", {"token": "unknown"})
            assert (await proxy.receive("RouteInfoResponse"))["route_info"] is None
