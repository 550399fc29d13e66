"""A proxy between a raw client and a raw backend, with a controller of the protocol that obeys the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from harness.clusters import free_port
from harness.program import Program, program
from plane.protocol.names import ClusterName, NodeName
from plane.proxy.server import ProxyServer, start_proxy
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.transport.controller_url import ControllerUrl

__all__ = ["CLUSTER", "LIMIT_S", "OK", "World", "get", "program_world", "says", "status", "world"]

CLUSTER = "localhost:9"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMIT_S = 10.0

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class World:
    """A proxy, a controller of the test's own, and a backend that does what a test says."""

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Any] | None] = {}
        self.asked: list[str] = []
        # What the controller announces, and how many messages with several tokens it got.
        self.extensions: list[str] = []
        self.lists = 0
        self.kept_alive: list[str] = []
        self.heard: list[bytes] = []
        self.silent = False
        # Set to stop the proxy, as SIGTERM does.
        self.stop = asyncio.Event()
        self.handshake: dict[str, Any] = {}
        self.gone = False
        self.controller: web.WebSocketResponse | None = None
        self.exchange: Exchange = self.answer_ok
        self.port = 0
        self.https_port: int | None = None
        self.service: ProxyService
        self.backend_port = 0
        self.connections = 0
        # Connections to the controller so far.
        self.sockets = 0

    async def controller_socket(self, request: web.Request) -> web.WebSocketResponse:
        if self.gone:
            raise web.HTTPServiceUnavailable
        self.sockets += 1
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.handshake = json.loads(await ws.receive_str())
        handshake: dict[str, Any] = {"version": {"version": "0.5.5", "git_hash": "x"}, "name": "co-x"}
        if self.extensions:
            handshake["extensions"] = self.extensions
        await ws.send_str(json.dumps(handshake))
        self.controller = ws
        async for frame in ws:
            message = json.loads(frame.data)
            if "KeepAlive" in message:
                self.kept_alive.append(message["KeepAlive"])
                continue
            if "RouteInfoRequests" in message:
                self.lists += 1
                tokens = message["RouteInfoRequests"]["tokens"]
                answers = [{"token": token, "route_info": self.routes.get(token)} for token in tokens]
                response: dict[str, Any] = {"RouteInfoResponses": {"responses": answers}}
            else:
                tokens = [message["RouteInfoRequest"]["token"]]
                response = {"RouteInfoResponse": {"token": tokens[0], "route_info": self.routes.get(tokens[0])}}
            self.asked += tokens
            if not self.silent:
                await ws.send_str(json.dumps(response))
        return ws

    def add_route(self, token: str, **changes: Any) -> None:
        self.routes[token] = {
            "backend_id": f"b-{token}",
            "address": f"127.0.0.1:{self.backend_port}",
            "secret_token": "secret",
            "cluster": CLUSTER,
            "user": "ann",
            "user_data": {"n": 1},
            "subdomain": None,
            **changes,
        }

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer_ok(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)

    async def switch_and_echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes the upgrade, and sends back what comes."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data)

    async def send_and_wait(self, data: bytes) -> bytes:
        """Send a request, and return the head of its response, however long it takes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head

    async def until_asked(self) -> None:
        """Return when the proxy has asked where a token leads."""
        while not self.asked:
            await asyncio.sleep(0.01)

    async def until_ready(self) -> None:
        """Return when the proxy is connected."""
        while True:
            try:
                answer = await self.send(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            except ConnectionError:
                answer = b""
            if answer.startswith(b"HTTP/1.1 200"):
                return
            await asyncio.sleep(0.01)

    async def send(self, data: bytes) -> bytes:
        """Send, half-close nothing, and read until the proxy closes, or is quiet after its first bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        received = b""
        try:
            async with asyncio.timeout(LIMIT_S):
                while chunk := await asyncio.wait_for(reader.read(65536), 0.5 if received else LIMIT_S):
                    received += chunk
        except TimeoutError:
            pass
        writer.close()
        return received


@asynccontextmanager
async def _surroundings() -> AsyncIterator[tuple[World, str]]:
    """All but the proxy, and the controller's URL."""
    it = World()
    app = web.Application()
    app.add_routes([web.get("/ctrl/c/{cluster}/proxy-socket", it.controller_socket)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    backend = await asyncio.start_server(it.accept, "127.0.0.1", 0)
    it.backend_port = backend.sockets[0].getsockname()[1]
    it.add_route("t")
    try:
        yield it, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        # Also after a test that failed: an open server would keep its event loop from ending.
        backend.close()
        await runner.cleanup()


@asynccontextmanager
async def world(**changes: Any) -> AsyncIterator[World]:
    """A proxy with ``changes`` to its settings, connected to its controller, that knows the token "t"."""
    async with _surroundings() as (it, controller_url):
        values: dict[str, Any] = {
            "controller_url": ControllerUrl.parse(controller_url),
            "cluster": ClusterName(CLUSTER),
            "name": NodeName("px-test"),
            "host": "127.0.0.1",
            "http_port": 0,
            **changes,
        }
        started: asyncio.Future[ProxyServer] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            async with start_proxy(ProxySettings(**values)) as proxy:
                started.set_result(proxy)
                await it.stop.wait()

        serving = asyncio.create_task(serve())
        serving.add_done_callback(lambda _: started.done() or started.cancel())
        try:
            await asyncio.wait([started])
            if started.cancelled():
                await serving
            proxy = started.result()
            assert proxy.service is not None
            it.port, it.https_port, it.service = proxy.port, proxy.https_port, proxy.service
            await it.until_ready()
            yield it
        finally:
            it.stop.set()
            await asyncio.wait([serving])
        await serving


@asynccontextmanager
async def program_world(folder: Path, *options: str) -> AsyncIterator[tuple[World, Program]]:
    """The same with the real program, ready. Several processes may have the same port, one after the other."""
    async with _surroundings() as (it, controller_url):
        it.port = free_port()
        arguments = ["proxy", "--controller-url", controller_url, "--cluster", CLUSTER, "--name", "px-test"]
        arguments += ["--host", "127.0.0.1", "--http-port", str(it.port), *options]
        with program(arguments, folder, "proxy") as running:
            await asyncio.to_thread(running.says, "proxy listens")
            async with asyncio.timeout(30):
                await it.until_ready()
            yield it, running
            # Its signal must not be waited for by the loop that serves its controller.
            await asyncio.to_thread(running.stop)


def says(said: bytes) -> Exchange:
    """A backend that takes one request without a body, answers so, and closes."""

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)

    return exchange


def get(target: str = "/t/", *fields: str, host: str = CLUSTER, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
