"""The status stream: history first, each state once and in order, and an end after `terminated`."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone
from plane.settings import ControllerLimits

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
STATES: list[dict[str, Any]] = [
    {"status": "loading"},
    {"status": "starting"},
    {"status": "waiting", "address": "127.0.0.1:1"},
    {"status": "ready", "address": "127.0.0.1:1"},
    {"status": "terminating", "last_status": "ready", "termination": "soft", "reason": "external"},
    {
        "status": "terminated",
        "last_status": "ready",
        "termination": "soft",
        "reason": "external",
        "exit_code": 0,
    },
]
ALL = ["scheduled", *(state["status"] for state in STATES)]


async def read_stream(api: Api, backend: str, **headers: str) -> list[dict[str, Any]]:
    """All entries of a stream that ends."""
    async with asyncio.timeout(10):
        async with api.http.get(f"{api.base}/pub/b/{backend}/status-stream", headers=headers) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            blocks = (await answer.text()).strip().split("\n\n")
    entries = []
    for block in blocks:
        data, event_id = block.split("\n")
        entries.append(json.loads(data.removeprefix("data: ")))
        assert event_id == f"id: {entries[-1]['status']}"
    return entries


@pytest.mark.parametrize("seen_before_reading", range(len(STATES) + 1))
async def test_reader_receives_each_state_once_and_in_order(postgres_url: str, seen_before_reading: int) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]

        async def report(number: int) -> None:
            content = {"event_id": number + 1, "backend_id": backend, "state": STATES[number], "timestamp": 1}
            await drone.send("BackendEvent", content)
            await drone.receive("AckEvent")

        for number in range(seen_before_reading):
            await report(number)
        stream = asyncio.create_task(read_stream(api, backend))
        for number in range(seen_before_reading, len(STATES)):
            await report(number)
        entries = await stream
        assert [entry["status"] for entry in entries] == ALL
        assert entries[-1] == {
            "status": "terminated",
            "time": entries[-1]["time"],
            "termination_reason": "external",
            "termination_kind": "soft",
            "exit_error": False,
        }
        after = await read_stream(api, backend, **{"Last-Event-ID": "waiting"})
        assert [entry["status"] for entry in after] == ["ready", "terminating", "terminated"]


async def test_stream_of_an_unknown_backend_stays_open_and_empty(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with api.http.get(f"{api.base}/pub/b/unknown/status-stream") as answer:
            assert answer.status == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await answer.content.readany()
        # The documented spelling with the cluster.
        async with api.http.get(f"{api.base}/pub/c/{CLUSTER}/b/unknown/status-stream") as answer:
            assert answer.status == 200


async def test_stream_ends_with_its_backend_even_if_opened_later(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        watching = asyncio.create_task(read_stream(api, backend))
        content = {"event_id": 1, "backend_id": backend, "state": STATES[-1], "timestamp": 1}
        await drone.send("BackendEvent", content)
        entries = await watching
        assert [entry["status"] for entry in entries] == ["scheduled", "terminated"]
        assert await read_stream(api, backend) == entries
        # Who has seen the end gets nothing more, and need not wait for it.
        headers = {"Last-Event-ID": "terminated"}
        async with api.http.get(f"{api.base}/pub/b/{backend}/status-stream", headers=headers) as answer:
            assert await answer.text() == ""


async def raw_stream(api: Api, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """A connection on which ``request`` was sent, and the head of the answer."""
    where = urlsplit(api.base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(request.encode())
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    return reader, writer, head


async def test_http_1_0_stream_has_no_chunks_and_ends_by_closing(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        reader, writer, head = await raw_stream(api, f"GET /pub/b/{backend}/status-stream HTTP/1.0\r\n\r\n")
        assert "transfer-encoding" not in head
        async with asyncio.timeout(10):
            text = await reader.readuntil(b"id: scheduled\n\n")
            for number, state in enumerate(STATES):
                content = {"event_id": number, "backend_id": backend, "state": state, "timestamp": 1}
                await drone.send("BackendEvent", content)
            text += await reader.read()
        writer.close()
        lines = text.decode().split("\n")
        assert [line.removeprefix("id: ") for line in lines if line.startswith("id: ")] == ALL
        assert {line[:4] for line in lines} == {"data", "id: ", ""}


async def test_connection_is_reusable_after_its_stream(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        request = f"GET /pub/b/{backend}/status-stream HTTP/1.1\r\nHost: plane\r\n\r\n"
        reader, writer, head = await raw_stream(api, request)
        assert "transfer-encoding: chunked" in head
        async with asyncio.timeout(10):
            await reader.readuntil(b"id: scheduled\n\n\r\n")
            # Heard while nobody but the event bus is awake for it.
            content = {"event_id": 1, "backend_id": backend, "state": STATES[-1], "timestamp": 1}
            await drone.send("BackendEvent", content)
            await reader.readuntil(b"id: terminated\n\n\r\n0\r\n\r\n")
            writer.write(b"GET /pub/health HTTP/1.1\r\nHost: plane\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


async def test_head_response_has_no_body(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        request = "HEAD /pub/b/unknown/status-stream HTTP/1.1\r\nHost: plane\r\nConnection: close\r\n\r\n"
        reader, writer, head = await raw_stream(api, request)
        assert head.startswith("http/1.1 200 ok")
        assert "content-type: text/event-stream" in head
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_invalid_state_event_does_not_disturb_readers(postgres_url: str) -> None:
    """As a later version might write one."""
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        requests = 2 * [f"GET /pub/b/{backend}/status-stream HTTP/1.1\r\nHost: plane\r\n\r\n"]
        streams = [await raw_stream(api, request) for request in requests]
        sql = await asyncpg.connect(postgres_url)
        async with asyncio.timeout(10):
            for reader, _, _ in streams:
                await reader.readuntil(b"id: scheduled\n\n\r\n")
            with capture_logs() as logs:
                await sql.execute("""SELECT plane_emit('backend_state', $1, '{"status": "dreaming"}')""", backend)
                content = {"event_id": 1, "backend_id": backend, "state": STATES[0], "timestamp": 1}
                await drone.send("BackendEvent", content)
                for reader, writer, _ in streams:
                    chunk = await reader.readuntil(b"id: loading\n\n\r\n")
                    assert chunk.partition(b"\r\n")[2].startswith(b'data: {"status":"loading"')
                    writer.close()
        await sql.close()
        assert [entry["backend"] for entry in logs if entry["event"] == "backend state not decoded"] == [backend]


async def test_stopping_controller_does_not_wait_for_streams(
    postgres_url: str,
) -> None:
    # Longer than this test may take.
    limits = ControllerLimits(shutdown_grace_s=300.0)
    async with aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        async with controller_api(postgres_url, limits=limits) as api:
            drone = await stack.enter_async_context(fake_drone(api.base, extensions=["logs"]))
            backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
            states = await stack.enter_async_context(http.get(f"{api.base}/pub/b/{backend}/status-stream"))
            assert b"scheduled" in await states.content.readuntil(b"\n\n")
            following = asyncio.create_task(http.get(f"{api.base}/ctrl/b/{backend}/logs?follow=true"))
            asked = await drone.receive("ReadLogs")
            page = {"lines": [[1, "a line"]], "ended": False}
            await drone.send("LogsRead", {"request_id": asked["request_id"], "page": page})
            output = await stack.enter_async_context(await following)
            assert (await output.content.readline()).endswith(b"a line\n")
            await drone.receive("ReadLogs")
        # Cut, so that their readers come back, to another controller.
        for answer in (states, output):
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
