"""A proxy between a raw client and a raw backend, with a controller that speaks page 2 and obeys the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from plane.protocol.names import ClusterName, NodeName
from plane.proxy.running import RunningProxy, running_proxy
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.transport.controller_url import ControllerUrl

__all__ = ["CLUSTER", "LIMIT_S", "OK", "World", "get", "status", "world"]

CLUSTER = "localhost:9"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMIT_S = 10.0

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class World:
    """A proxy, a controller of the test's own that speaks page 2, and a backend that does what a test says."""

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Any] | None] = {}
        self.asked: list[str] = []
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

    async def controller_socket(self, request: web.Request) -> web.WebSocketResponse:
        if self.gone:
            raise web.HTTPServiceUnavailable
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.handshake = json.loads(await ws.receive_str())
        await ws.send_str(json.dumps({"version": {"version": "0.5.5", "git_hash": "x"}, "name": "co-x"}))
        self.controller = ws
        async for frame in ws:
            message = json.loads(frame.data)
            if "KeepAlive" in message:
                self.kept_alive.append(message["KeepAlive"])
                continue
            token = message["RouteInfoRequest"]["token"]
            self.asked.append(token)
            if not self.silent:
                answer = {"token": token, "route_info": self.routes.get(token)}
                await ws.send_str(json.dumps({"RouteInfoResponse": answer}))
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

    async def send(self, data: bytes) -> bytes:
        """Send, half-close nothing, and read until the proxy closes or is quiet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        received = b""
        try:
            async with asyncio.timeout(LIMIT_S):
                while chunk := await asyncio.wait_for(reader.read(65536), 0.5):
                    received += chunk
        except TimeoutError:
            pass
        writer.close()
        return received


@asynccontextmanager
async def world(**changes: Any) -> AsyncIterator[World]:
    """A proxy with ``changes`` to its settings, connected to its controller, that knows the token "t"."""
    it = World()
    app = web.Application()
    app.add_routes([web.get("/ctrl/c/{cluster}/proxy-socket", it.controller_socket)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    controller_port = runner.addresses[0][1]
    backend = await asyncio.start_server(it.accept, "127.0.0.1", 0)
    it.backend_port = backend.sockets[0].getsockname()[1]
    values: dict[str, Any] = {
        "controller_url": ControllerUrl.parse(f"http://127.0.0.1:{controller_port}"),
        "cluster": ClusterName(CLUSTER),
        "name": NodeName("px-test"),
        "host": "127.0.0.1",
        "http_port": 0,
        **changes,
    }
    it.add_route("t")
    started: asyncio.Future[RunningProxy] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with running_proxy(ProxySettings(**values)) as proxy:
            started.set_result(proxy)
            await it.stop.wait()

    serving = asyncio.create_task(serve())
    serving.add_done_callback(lambda _: started.done() or started.cancel())
    try:
        await asyncio.wait([started])
        if started.cancelled():
            await serving
        proxy = started.result()
        it.port, it.https_port, it.service = proxy.port, proxy.https_port, proxy.service
        while b"200" not in (await it.send(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[:15]:
            await asyncio.sleep(0.01)
        yield it
    finally:
        # Also after a test that failed: an open server would keep its event loop from ending.
        it.stop.set()
        await asyncio.wait([serving])
        backend.close()
        await runner.cleanup()
    await serving


def get(target: str = "/t/", *fields: str, host: str = CLUSTER, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
