"""A Docker engine that accepts connections and responds late or never: each call times out and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from plane.runtime.base import BackendFailed, RuntimeListener, SpawnRequest
from plane.runtime.docker.config import ContainerDefaults
from plane.runtime.docker.engine import DockerEngine, engine_is_available
from plane.runtime.docker.runtime import DockerRuntime
from plane.runtime.logs.collector import LogCollector

LIMIT_S = 0.3


class Engine:
    """Responds with what ``reply`` returns. If that is None, it waits until ``thawed`` and responds 404."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.requests: list[str] = []
        self.reply: Callable[[web.Request], web.Response | None] = lambda request: None
        self.thawed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if reply := self.reply(request):
            return reply
        await self.thawed.wait()
        return web.json_response({"message": "no such thing"}, status=404)

    async def until_requested(self, what: str) -> None:
        async with asyncio.timeout(20):
            while what not in self.requests:
                await asyncio.sleep(0.01)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    it = Engine(tmp_path / "docker.sock")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", it.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, it.socket).start()
    yield it
    it.thawed.set()
    await runner.cleanup()


@asynccontextmanager
async def docker(engine: Engine, tmp_path: Path) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(
        LogCollector(tmp_path / "logs"),
        engine.socket,
        defaults=ContainerDefaults(drone="dr-test", cluster="test"),
        call_timeout_s=LIMIT_S,
    )
    await runtime.start(RuntimeListener(lambda *exited: None))
    try:
        yield runtime
    finally:
        await runtime.close(leave_running=True)
        # The HTTP client of Docker closes its sockets a moment after itself.
        await asyncio.sleep(0.1)


async def test_a_hanging_engine_is_not_available(engine: Engine) -> None:
    assert await engine_is_available(engine.socket, LIMIT_S) is False
    assert engine.requests == ["GET /version"]


async def test_each_call_times_out_with_its_operation_and_timeout(engine: Engine) -> None:
    client = DockerEngine(engine.socket, LIMIT_S)
    try:
        with pytest.raises(
            BackendFailed,
            match=r"no response from the Docker engine to the request to inspect the container: .* 0\.3 s",
        ):
            await client.inspect("plane-x")
    finally:
        await client.close()


async def test_prepare_fails_if_the_engine_hangs(engine: Engine, tmp_path: Path) -> None:
    async with docker(engine, tmp_path) as runtime:
        with pytest.raises(BackendFailed, match=r"request to inspect the image"):
            await runtime.prepare({"image": "x"})


async def test_a_failed_start_removes_its_container_later(engine: Engine, tmp_path: Path) -> None:
    async with docker(engine, tmp_path) as runtime:
        with pytest.raises(BackendFailed, match=r"request to create the container"):
            await runtime.spawn(SpawnRequest("b", {"image": "x"}))
        await engine.until_requested("DELETE /containers/plane-b")
        # The start failed, so there is nothing to terminate.
        assert await runtime.terminate("b", hard=True) is False


async def test_output_is_readable_while_it_is_being_stored(engine: Engine, tmp_path: Path) -> None:
    """A container has ended, and the engine is slow to return its output."""
    status = "running"

    def reply(request: web.Request) -> web.Response | None:
        match request.method, request.path:
            case "GET", "/containers/plane-b/json":
                return web.json_response({"State": {"Status": status, "ExitCode": 3, "OOMKilled": False, "Error": ""}})
            case "POST", "/containers/plane-b/kill":
                return web.json_response({"message": "not running"}, status=409)
            case "GET", "/containers/plane-b/logs" if "since" in request.query:
                text = b"2026-01-01T00:00:00.000000001Z a line\n"
                return web.Response(body=b"\1\0\0\0" + len(text).to_bytes(4, "big") + text)
        return None

    engine.reply = reply
    async with docker(engine, tmp_path) as runtime:
        assert (await runtime.adopt("b", None)).running
        status = "exited"
        await runtime.terminate("b", hard=True)
        await engine.until_requested("GET /containers/plane-b/logs")
        page = await runtime.read_logs("b", 1, None, 0)
        assert ([line.text for line in page.lines], page.ended) == (["a line"], False)


async def test_adoption_fails_while_the_engine_hangs(engine: Engine, tmp_path: Path) -> None:
    async with docker(engine, tmp_path) as runtime:
        with pytest.raises(BackendFailed, match=r"inspect the container"):
            await runtime.adopt("b", None)
        engine.thawed.set()
        found = await runtime.adopt("b", None)
        assert found.running is False
