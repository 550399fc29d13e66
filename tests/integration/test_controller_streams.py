"""The status stream: history first, each state once and in order, and an end after `terminated`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone

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
async def test_each_state_once_and_in_order_whenever_one_begins_to_read(
    postgres_url: str, seen_before_reading: int
) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]

        async def report(number: int) -> None:
            content = {"event_id": number + 1, "backend_id": backend, "state": STATES[number], "timestamp": 1}
            await drone.say("BackendEvent", content)
            await drone.hear("AckEvent")

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


async def test_an_unknown_backend_has_an_empty_stream_that_stays_open(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with api.http.get(f"{api.base}/pub/b/unknown/status-stream") as answer:
            assert answer.status == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await answer.content.readany()
        # The documented spelling with the cluster.
        async with api.http.get(f"{api.base}/pub/c/{CLUSTER}/b/unknown/status-stream") as answer:
            assert answer.status == 200


async def test_a16_a_stream_ends_with_its_backend_and_one_that_begins_later_ends_too(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        watching = asyncio.create_task(read_stream(api, backend))
        content = {"event_id": 1, "backend_id": backend, "state": STATES[-1], "timestamp": 1}
        await drone.say("BackendEvent", content)
        entries = await watching
        assert [entry["status"] for entry in entries] == ["scheduled", "terminated"]
        assert await read_stream(api, backend) == entries
        # Who has seen the end gets nothing more, and need not wait for it.
        headers = {"Last-Event-ID": "terminated"}
        async with api.http.get(f"{api.base}/pub/b/{backend}/status-stream", headers=headers) as answer:
            assert await answer.text() == ""
