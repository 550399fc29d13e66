"""The proxy against nginx and against the backend directly: ``python -m bench.proxy``.

One core for what is measured, the other for load and backend; rounds interleaved, medians, ratios to nginx.
Traffic stays on loopback and ends by itself. Needs nginx and wrk.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

TOKEN = "benchmark-token"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
PROXY_PORT, NGINX_PORT, BACKEND_PORT, CONTROLLER_PORT = 29090, 29091, 29092, 29093
MEASURED_CORE, LOAD_CORE = "0", "1"
# Of nginx; the gates of issue "First light".
GATES = {"keep-alive small GET": 0.60, "WebSocket messages": 0.80, "1 MiB bodies": 0.75}

# The backend is nginx too, so that it is not what is measured.
BACKEND = """
worker_processes 1; daemon off; pid {folder}/backend.pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 100000000; sendfile on; tcp_nopush on;
  server {{ listen 127.0.0.1:{backend} backlog=1024;
    location = /small {{ return 200 "hello"; }} location = /large {{ root {folder}; }} }} }}
"""
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 100000000; }}
  upstream sockets {{ server 127.0.0.1:{sockets}; }}
  proxy_http_version 1.1; proxy_buffers 16 256k; proxy_buffer_size 256k; proxy_busy_buffers_size 512k;
  server {{ listen 127.0.0.1:{nginx} backlog=1024;
    location / {{ proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_pass http://backend/; }}
    location /echo {{ proxy_set_header Connection Upgrade; proxy_set_header Upgrade $http_upgrade;
      proxy_pass http://sockets; }} }} }}
"""
SOCKETS_PORT = 29094


class Echo(asyncio.Protocol):
    """Upgrades whatever comes, and sends back every byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.upgraded = False

    def data_received(self, data: bytes) -> None:
        if not self.upgraded:
            self.upgraded = True
            data = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        self.transport.write(data)  # type: ignore[attr-defined]


class Ping(asyncio.Protocol):
    """Upgrades, then sends a message each time the last has come back."""

    MESSAGE = b"\x81\x85\x00\x00\x00\x00hello"

    def __init__(self, path: str, host: str) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
        self.count = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.count += 1
        self.transport.write(self.MESSAGE)  # type: ignore[attr-defined]


def _itself(ping: Ping) -> Ping:
    return ping


async def ping_for(port: int, path: str, connections: int) -> float:
    """Messages a second through ``port``."""
    loop = asyncio.get_running_loop()
    pings = [Ping(path, f"localhost:{PROXY_PORT}") for _ in range(connections)]
    for ping in pings:
        await loop.create_connection(functools.partial(_itself, ping), "127.0.0.1", port)
    await asyncio.sleep(0.5)
    before, start = sum(ping.count for ping in pings), time.perf_counter()
    await asyncio.sleep(SECONDS)
    rate = (sum(ping.count for ping in pings) - before) / (time.perf_counter() - start)
    for ping in pings:
        ping.transport.close()
    return rate


async def serve_echo() -> None:
    """The backend of the WebSocket rows, until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", SOCKETS_PORT, backlog=1024)
    await server.serve_forever()


async def serve_controller() -> None:
    """A controller that knows one token per backend, and says what page 2 says; until killed."""

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive_str()
        await ws.send_str(json.dumps({"version": {"version": "0", "git_hash": "0"}, "name": "co-bench"}))
        async for frame in ws:
            message = json.loads(frame.data)
            if "RouteInfoRequest" in message:
                token = message["RouteInfoRequest"]["token"]
                port = SOCKETS_PORT if token.endswith("-echo") else BACKEND_PORT
                route = {
                    "backend_id": token,
                    "address": f"127.0.0.1:{port}",
                    "secret_token": "s",
                    "cluster": f"localhost:{PROXY_PORT}",
                    "user": "ann",
                    "user_data": {},
                    "subdomain": None,
                }
                await ws.send_str(json.dumps({"RouteInfoResponse": {"token": token, "route_info": route}}))
        return ws

    app = web.Application()
    app.add_routes([web.get("/ctrl/c/{cluster}/proxy-socket", socket)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", CONTROLLER_PORT).start()
    await asyncio.Event().wait()


@contextmanager
def running(core: str, *command: str | Path) -> Iterator[None]:
    """A program on one core, while the block runs."""
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def wrk(port: int, path: str, connections: int) -> float:
    """Requests a second through ``port``."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s"]
    command += ["-H", f"Host: localhost:{PROXY_PORT}", f"http://127.0.0.1:{port}{path}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"not all requests were answered well:\n{out}")
    return float(next(line.split()[1] for line in out.splitlines() if line.startswith("Requests/sec")))


def messages(port: int, path: str, connections: int) -> float:
    """Messages a second, by a process of its own on the load's core."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "bench.proxy", "ping", str(port), path]
    out = subprocess.run([*command, str(connections)], check=True, capture_output=True, text=True).stdout
    return float(out)


def measure() -> bool:
    """Run all rounds and print the table. True if all gates hold."""
    plane = Path(sys.executable).parent / "plane"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        (folder / "large").write_bytes(os.urandom(1024 * 1024))
        ports = {"folder": folder, "backend": BACKEND_PORT, "nginx": NGINX_PORT, "sockets": SOCKETS_PORT}
        for name, text, core in (("backend", BACKEND, LOAD_CORE), ("nginx", NGINX, MEASURED_CORE)):
            (folder / f"{name}.conf").write_text(text.format(**ports))
            stack.enter_context(
                running(core, shutil.which("nginx") or "/usr/sbin/nginx", "-c", folder / f"{name}.conf")
            )
        for role in ("controller", "echo"):
            stack.enter_context(running(LOAD_CORE, sys.executable, "-m", "bench.proxy", role))
        url, cluster = f"http://127.0.0.1:{CONTROLLER_PORT}", f"localhost:{PROXY_PORT}"
        arguments = ["--controller-url", url, "--cluster", cluster, "--http-port", str(PROXY_PORT)]
        stack.enter_context(running(MEASURED_CORE, plane, "proxy", "--host", "127.0.0.1", *arguments))
        asyncio.run(until_ready())
        return report(rounds())


async def until_ready() -> None:
    """Return once everything answers."""
    url = f"http://localhost:{PROXY_PORT}/{TOKEN}/small"
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


Row = tuple[str, Callable[[int, str, int], float], int, dict[str, tuple[int, str]]]
ROWS: list[Row] = [
    (
        "keep-alive small GET",
        wrk,
        64,
        {
            "plane": (PROXY_PORT, f"/{TOKEN}/small"),
            "nginx": (NGINX_PORT, "/small"),
            "direct": (BACKEND_PORT, "/small"),
        },
    ),
    (
        "1 MiB bodies",
        wrk,
        8,
        {
            "plane": (PROXY_PORT, f"/{TOKEN}/large"),
            "nginx": (NGINX_PORT, "/large"),
            "direct": (BACKEND_PORT, "/large"),
        },
    ),
    (
        "WebSocket messages",
        messages,
        100,
        {
            "plane": (PROXY_PORT, f"/{TOKEN}-echo/"),
            "nginx": (NGINX_PORT, "/echo"),
            "direct": (SOCKETS_PORT, "/echo"),
        },
    ),
]


def rounds() -> dict[str, dict[str, list[float]]]:
    """Rates by row and by what was asked, one of each per round."""
    rates: dict[str, dict[str, list[float]]] = {row[0]: {name: [] for name in row[3]} for row in ROWS}
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for name, load, connections, ways in ROWS:
            for way, (port, path) in ways.items():
                rates[name][way].append(load(port, path, connections))
    return rates


def report(rates: dict[str, dict[str, list[float]]]) -> bool:
    """Print medians and ratios."""
    print(f"\n{'workload':<22}{'plane/s':>10}{'nginx/s':>10}{'direct/s':>10}{'of nginx':>10}{'gate':>7}")
    good = True
    for name, ways in rates.items():
        median = {way: statistics.median(values) for way, values in ways.items()}
        # The median of the rounds' own ratios: neighbours in time suffer the same noise.
        ratio = statistics.median(p / n for p, n in zip(ways["plane"], ways["nginx"], strict=True))
        good &= ratio >= GATES[name]
        print(
            f"{name:<22}{median['plane']:>10.0f}{median['nginx']:>10.0f}{median['direct']:>10.0f}"
            f"{ratio:>10.2f}{GATES[name]:>7.2f}"
        )
    return good


def main() -> None:
    """Measure, or play one of the parts."""
    match sys.argv[1:]:
        case ["controller"]:
            uvloop.run(serve_controller())
        case ["echo"]:
            uvloop.run(serve_echo())
        case ["ping", port, path, connections]:
            print(uvloop.run(ping_for(int(port), path, int(connections))))
        case _:
            sys.exit(0 if measure() else 1)


if __name__ == "__main__":
    main()
