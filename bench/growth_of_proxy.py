"""The rows of `bench.growth` about a proxy. Both are its only parts; clients and backends are in the same process here.

A proxy as a process, a controller that responds at once, and backends that echo. Backends and clients use several
addresses of the loopback interface, since one pair of addresses has only 28,000 ports.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

from bench.controller_load import row
from bench.processes import PLANE, Server, serving
from bench.proxy.parts import Echo, cpu_s, resident_kib
from plane.decisions.routing.route_cache import RouteCache
from plane.fd_limit import raise_fd_limit

__all__ = ["routes", "tunnels"]

CLUSTER = "localhost"
TUNNELS = 100_000
OTHER_FILES = 1_000
# Tunnels over which messages are sent beside those that are idle.
BUSY = 100
BUSY_S = 5.0
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 9)]
OPENING = 200
ROUTES = (10, 100_000, 1_000_000)
ROUTES_LOOKED_UP = 200_000
MESSAGE = b"\x81\x85\x00\x00\x00\x00hello"


async def routes(_: Path) -> None:
    """Print what a lookup in the cache costs with few and with many routes, asked for at random."""
    first = 0.0
    for count in ROUTES:
        cache: RouteCache[tuple[int]] = RouteCache(routes_limit=count)
        before_kib = _own_kib()
        for number in range(count):
            cache.put(f"token-{number}", (number,), f"backend-{number % 1000}", None, 0.0)
        each_kib = (_own_kib() - before_kib) / count
        tokens = [f"token-{random.randrange(count)}" for _ in range(ROUTES_LOOKED_UP)]
        start = time.process_time()
        for token in tokens:
            cache.get(token, 1.0)
        each_us = (time.process_time() - start) / ROUTES_LOOKED_UP * 1e6
        first = first or each_us
        size = f", {each_kib * 1024:.0f} bytes for each beside the route itself" if count > 1000 else ""
        text = f"{each_us:.2f} us, {each_us / first:.1f} times{size}"
        row(f"{count:,} cached routes: one of them", text, must="no growth but of caches of the processor", aim="")


def _own_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


class _Tunnel(asyncio.Protocol):
    """A client's tunnel. ``busy``: send a message each time the last one has come back."""

    def __init__(self, token: str) -> None:
        self._request = (
            f"GET /{token}/ HTTP/1.1\r\nHost: {CLUSTER}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        self.open = asyncio.get_running_loop().create_future()
        self.count = 0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request.encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.open.set_result(data.startswith(b"HTTP/1.1 101"))
            return
        self.count += 1
        if self.busy:
            self.send()

    def send(self) -> None:
        self.transport.write(MESSAGE)  # type: ignore[attr-defined]


async def tunnels(folder: Path) -> None:
    """Print what a message costs the proxy beside idle tunnels, and what these cost it.

    There are as many of them as the system lets a process have files for: two for each.

    Raises:
        BenchFailed
    """
    # Of the proxy, and of this process, which has clients and backends.
    count = min(TUNNELS, (raise_fd_limit() - OTHER_FILES) // 2)
    async with _proxy(folder) as proxy:
        busy = [await _open(proxy, number) for number in range(BUSY)]
        alone_us = await _message_us(proxy, busy)
        before_kib = resident_kib(proxy.pid)
        idle: list[_Tunnel] = []
        for first in range(0, count, OPENING):
            idle += await asyncio.gather(*(_open(proxy, number) for number in range(first, first + OPENING)))
        each_kib = (resident_kib(proxy.pid) - before_kib) / len(idle)
        beside_us = await _message_us(proxy, busy)
        before, start = cpu_s(proxy.pid), time.perf_counter()
        await asyncio.sleep(BUSY_S)
        idle_cores = (cpu_s(proxy.pid) - before) / (time.perf_counter() - start)
        row(
            f"a message beside {len(idle):,} idle tunnels: CPU time of the proxy, of that beside none",
            f"{beside_us / alone_us:.2f} times ({alone_us:.1f} and {beside_us:.1f} us)",
            must="no growth",
            aim="",
        )
        row(f"{len(idle):,} idle tunnels: memory of each", f"{each_kib:.1f} KiB", must="6", aim="3")
        row(f"{len(idle):,} idle tunnels and nothing else: cores", f"{idle_cores:.3f}", must="no growth", aim="")
        for tunnel in idle + busy:
            tunnel.transport.close()


async def _open(proxy: Server, number: int) -> _Tunnel:
    address = ADDRESSES[number % len(ADDRESSES)]
    _, tunnel = await asyncio.get_running_loop().create_connection(
        lambda: _Tunnel(f"token-{number % 1000}"), address, proxy.port
    )
    assert await tunnel.open
    return tunnel


async def _message_us(proxy: Server, busy: list[_Tunnel]) -> float:
    """CPU time of the proxy for each message and its echo."""
    for tunnel in busy:
        tunnel.busy = True
        tunnel.send()
    before = cpu_s(proxy.pid), sum(tunnel.count for tunnel in busy)
    await asyncio.sleep(BUSY_S)
    after = cpu_s(proxy.pid), sum(tunnel.count for tunnel in busy)
    for tunnel in busy:
        tunnel.busy = False
    await asyncio.sleep(0.5)
    return (after[0] - before[0]) / (after[1] - before[1]) * 1e6


@asynccontextmanager
async def _proxy(folder: Path) -> AsyncIterator[Server]:
    """A proxy with a controller of this process, whose tokens lead to backends on several addresses."""
    backends = await asyncio.get_running_loop().create_server(Echo, "0.0.0.0", 0, backlog=4096)
    backend_port = backends.sockets[0].getsockname()[1]

    def route(token: str) -> dict[str, object]:
        number = int(token.rpartition("-")[2])
        return {
            "backend_id": f"backend-{number}",
            "address": f"{ADDRESSES[number % len(ADDRESSES)]}:{backend_port}",
            "secret_token": "",
            "cluster": CLUSTER,
            "user_data": None,
        }

    async def node_socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive_str()
        await ws.send_str(json.dumps({"version": {"version": "0", "git_hash": "0"}, "name": "co-bench"}))
        # The proxy may end while a ping is responded to.
        with suppress(ConnectionResetError):
            async for frame in ws:
                asked = json.loads(frame.data).get("RouteInfoRequest")
                if asked is not None:
                    response = {"token": asked["token"], "route_info": route(asked["token"])}
                    await ws.send_str(json.dumps({"RouteInfoResponse": response}))
        return ws

    app = web.Application()
    app.add_routes([web.get("/ctrl/c/{cluster}/proxy-socket", node_socket)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    controller_port = runner.addresses[0][1]
    command = [str(PLANE), "proxy", "--host", "0.0.0.0", "--cluster", CLUSTER]
    command += ["--controller-url", f"http://127.0.0.1:{controller_port}"]
    try:
        async with serving(command, folder, "--http-port") as proxy:
            yield proxy
    finally:
        backends.close()
        await runner.cleanup()
