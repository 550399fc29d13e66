"""Both Python clients against a real controller with a drone that obeys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from harness.clusters import free_port
from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone, obedient_drone
from harness.relay import Relay
from plane.client import (
    ApiErrorKind,
    AsyncPlane,
    BackendEnded,
    BackendStatus,
    CallRefused,
    ControllerUnreachable,
    DockerExecutable,
    KeyConfig,
    Plane,
    SpawnConfig,
    UnexpectedResponse,
)

CONFIG = SpawnConfig(executable=DockerExecutable(image="example/image"))
LIMIT_S = 20.0


@pytest.fixture
async def api(postgres_url: str) -> AsyncIterator[Api]:
    async with controller_api(postgres_url) as running, obedient_drone(running.base):
        yield running


async def test_client_connects_follows_and_terminates(api: Api) -> None:
    async with AsyncPlane(api.base) as plane:
        answer = await plane.connect("k", CONFIG, user="ada", auth={"role": "author"})
        assert answer.spawned
        assert answer.url.startswith(f"http://{CLUSTER}/")
        assert (await plane.until_ready(answer.backend_id, timeout_s=LIMIT_S)).status is BackendStatus.READY
        again = await plane.connect(KeyConfig(name="k"))
        assert (again.backend_id, again.spawned) == (answer.backend_id, False)
        assert again.token != answer.token
        await plane.terminate(answer.backend_id)
        async with asyncio.timeout(LIMIT_S):
            states = [entry.status async for entry in plane.status_stream(answer.backend_id)]
        assert states[0] is BackendStatus.SCHEDULED
        assert states[-1] is BackendStatus.TERMINATED
        assert sorted(states, key=lambda status: status.number) == states
        with pytest.raises(BackendEnded, match="is terminated"):
            await plane.until_ready(answer.backend_id, timeout_s=LIMIT_S)


async def test_errors_have_status_kind_and_id(api: Api) -> None:
    async with AsyncPlane(api.base) as plane:
        with pytest.raises(CallRefused) as refused:
            await plane.connect("nobody holds it")
        assert (refused.value.status, refused.value.kind) == (409, ApiErrorKind.KEY_UNHELD_NO_SPAWN_CONFIG)
        assert refused.value.error_id
        assert refused.value.error_id in str(refused.value)
        for call in (plane.status("none"), plane.terminate("none"), plane.until_ready("none")):
            with pytest.raises(CallRefused) as missing:
                await call
            assert missing.value.kind is ApiErrorKind.NOT_FOUND


async def test_blocking_client_behaves_like_the_asynchronous_one(api: Api) -> None:
    def use() -> list[BackendStatus]:
        with Plane(api.base) as plane:
            assert plane.controller_status().status == "ok"
            assert len(plane.cluster_state(CLUSTER).drones) == 1
            answer = plane.connect("sync", CONFIG)
            plane.until_ready(answer.backend_id, timeout_s=LIMIT_S)
            for first in plane.status_stream(answer.backend_id):
                assert first.status is BackendStatus.SCHEDULED
                break
            plane.terminate(answer.backend_id, hard=True)
            states = [entry.status for entry in plane.status_stream(answer.backend_id)]
        plane.close()
        with pytest.raises(RuntimeError, match="closed"):
            plane.status("x")
        return states

    assert (await asyncio.to_thread(use))[-1] is BackendStatus.TERMINATED


async def test_stream_continues_over_a_new_connection(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        port = int(api.base.rpartition(":")[2])
        relay = Relay(port)
        async with AsyncPlane(f"http://127.0.0.1:{relay.port}") as plane:
            backend = (await plane.connect("k", CONFIG)).backend_id
            seen: list[BackendStatus] = []
            first = asyncio.Event()

            async def follow() -> None:
                async for entry in plane.status_stream(backend):
                    seen.append(entry.status)
                    first.set()

            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                group.create_task(follow())
                await first.wait()
                relay.cut()
                for number, state in enumerate(
                    ({"status": "loading"}, {"status": "terminated", "last_status": "loading"})
                ):
                    event = {"event_id": number + 1, "backend_id": backend, "state": state, "timestamp": 1}
                    await drone.send("BackendEvent", event)
                    await drone.receive("AckEvent")
            relay.close()
            assert seen == [BackendStatus.SCHEDULED, BackendStatus.LOADING, BackendStatus.TERMINATED]


@asynccontextmanager
async def another_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that does to each connection what ``handle`` does, and closes it."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.wait(handlers)


async def test_unreachable_controller_raises() -> None:
    async with AsyncPlane(f"http://127.0.0.1:{free_port()}") as plane:
        with pytest.raises(ControllerUnreachable) as unreachable:
            await plane.connect(None, CONFIG)
        assert not unreachable.value.sent


async def test_only_safe_calls_are_retried_after_a_hang_up() -> None:
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())

    async with another_server(hang_up) as url, AsyncPlane(url) as plane:
        with pytest.raises(ControllerUnreachable) as unreachable:
            await plane.connect(None, CONFIG)
        assert unreachable.value.sent
        assert len(heard) == 1
        heard.clear()
        with pytest.raises(ControllerUnreachable):
            await plane.status("x")
        # aiohttp itself repeats a GET once.
        assert 3 <= len(heard) <= 6


async def test_silent_server_times_out() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with another_server(silence) as url, AsyncPlane(url, timeout_s=0.3) as plane:
        with pytest.raises(ControllerUnreachable, match=r"no response within 0\.3 s"):
            await plane.status("x")


async def test_response_of_another_server_is_recognized() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")

    async with another_server(page) as url, AsyncPlane(url) as plane:
        with pytest.raises(UnexpectedResponse):
            await plane.controller_status()


async def test_events_are_paged_and_followed_across_a_broken_connection(api: Api) -> None:
    relay = Relay(int(api.base.rpartition(":")[2]))
    async with AsyncPlane(f"http://127.0.0.1:{relay.port}") as plane:
        start = (await plane.events(limit=1)).cursor
        followed = plane.follow_events(after=start, types=["backend.scheduled"])
        for name in ("e0", "e1"):
            await plane.connect(name, CONFIG)
            async with asyncio.timeout(LIMIT_S):
                assert (await anext(followed)).key == name
        relay.cut()
        await plane.connect("e2", CONFIG)
        async with asyncio.timeout(LIMIT_S):
            assert (await anext(followed)).key == "e2"
        page = await plane.events(after=start, types=["backend.scheduled"], limit=2)
        assert ([each.key for each in page.events], page.more) == (["e0", "e1"], True)
        assert [each.key for each in (await plane.events(key="e2", limit=1)).events] == ["e2"]
        with pytest.raises(CallRefused) as ahead:
            await plane.events(after=10**6)
        assert ahead.value.status == 410
        assert ahead.value.cursor == (await plane.events(limit=1)).cursor
    relay.close()


async def test_blocking_client_follows_events_and_sets_webhooks(api: Api) -> None:
    def use() -> None:
        with Plane(api.base) as plane:
            cursor = plane.events().cursor
            plane.connect("blocking", CONFIG)
            first = next(iter(plane.follow_events(after=cursor)))
            assert (first.type, first.key) == ("backend.scheduled", "blocking")
            made = plane.set_webhook("hook", "https://receiver.invalid/", types=["drone.*"])
            assert made.secret is not None
            assert made.secret not in repr(made)
            assert [each.name for each in plane.webhooks().webhooks] == ["hook"]
            assert plane.webhook("hook").types == ["drone.*"]
            result = plane.test_webhook("hook")
            assert not result.delivered
            assert result.error
            plane.delete_webhook("hook")
            assert plane.webhooks().webhooks == []

    await asyncio.to_thread(use)
