"""The rows that are no rates: memory, workers, latency, unknown and cold tokens, growth, TLS handshakes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiohttp
import uvloop

from bench.proxy.load import HOST, SECONDS, fill, messages, until_served, wrk, wrk_latency_ms
from bench.proxy.parts import LOAD_CORE, MEASURED_CORE, PORTS, TOKEN, Parts, cpu_s, plane, resident_kib, running
from bench.proxy.rates import ROUNDS

__all__ = ["SINGLE"]

TUNNELS = 2_000
REQUESTS = 400
HANDSHAKES = 300


def memory(found: Parts) -> None:
    """Of a process, per idle tunnel."""
    for way, port, path in (("plane", PORTS.plane, f"/{TOKEN}-echo/"), ("nginx", PORTS.nginx, "/echo")):
        before = resident_kib(found.pids[way])
        with held(port, path, TUNNELS):
            each = (resident_kib(found.pids[way]) - before) / TUNNELS
        print(f"memory per idle tunnel, {way}: {each:.1f} KiB (of {TUNNELS} tunnels; must: 6, goal: 3)")


@contextmanager
def held(port: int, path: str, count: int) -> Iterator[None]:
    """Idle tunnels, while the block runs."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "bench.proxy", "hold", str(port), path, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        try:
            yield
        finally:
            holder.stdin.close()


def workers(found: Parts) -> None:
    """Two on two cores to one on one. Load and backend need a core too, so what two could do is not seen on two cores.

    CPU time per request is, and what is left of it when there are two is how well they scale.
    """
    seen = {}
    for count, cores in ((1, MEASURED_CORE), (2, f"{MEASURED_CORE},{LOAD_CORE}")):
        with running(cores, *plane(PORTS.workers, "--workers", str(count))) as pid:
            url = f"http://127.0.0.1:{PORTS.workers}/{TOKEN}/small"
            until_served(url)
            wrk(url)
            before = cpu_s(pid)
            rate = wrk(url)
            spent = cpu_s(pid) - before
            seen[count] = rate, spent / rate
    ratio = seen[2][0] / seen[1][0]
    efficiency = seen[1][1] / seen[2][1]
    print(
        f"two workers to one: {ratio:.2f} times the rate, load on the same two cores; CPU time per request "
        f"{seen[2][1] / seen[1][1]:.2f} times, so {2 * efficiency:.2f} times with cores to spare (must: 1.6, goal: 1.9)"
    )


def latency(found: Parts) -> None:
    """99th percentile, each at half of its own maximum."""
    ratios, ours = [], []
    for _ in range(3):
        p99 = {}
        for way, url in (
            ("plane", f"http://127.0.0.1:{PORTS.plane}/{TOKEN}/small"),
            ("nginx", f"http://127.0.0.1:{PORTS.nginx}/small"),
        ):
            p99[way] = wrk_latency_ms(url, wrk(url) / 2, found.folder / "delay.lua")
        ratios.append(p99["plane"] / p99["nginx"])
        ours.append(p99["plane"])
    print(
        f"p99 at half of the maximum: {statistics.median(ours):.2f} ms, {statistics.median(ratios):.2f} times nginx's "
        "(must: 3, goal: 1.5)"
    )


def tokens(found: Parts) -> None:
    """An unknown and a cold token, over what the controller takes to answer."""
    print(uvloop.run(_tokens()))


async def _tokens() -> str:
    url = f"http://127.0.0.1:{PORTS.controller}/ctrl/c/x/proxy-socket"
    reader, writer = await asyncio.open_connection("127.0.0.1", PORTS.plane)
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        await ws.send_str(json.dumps({"version": {"version": "0", "git_hash": "0"}, "name": "px-bench"}))
        await ws.receive_str()

        async def ask_controller(number: int) -> None:
            await ws.send_str(json.dumps({"RouteInfoRequest": {"token": f"unknown-{number}"}}))
            await ws.receive_str()

        async def request(token: str) -> None:
            writer.write(f"GET /{token}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " in head:
                await reader.readexactly(5)

        start = time.time_ns()
        answer = await _median_ms(ask_controller)
        unknown = await _median_ms(lambda number: request(f"unknown-{start}-{number}"))
        cold = await _median_ms(lambda number: request(f"cold-{start}-{number}"))
    writer.close()
    return (
        f"unknown token to 410: {unknown:.2f} ms, cold token to first byte: {cold:.2f} ms; "
        f"the controller's own answer: {answer:.2f} ms, so + {unknown - answer:.2f} and + {cold - answer:.2f} ms "
        "(must: + 1, goal: + 0.5)"
    )


async def _median_ms(once: Callable[[int], Awaitable[None]]) -> float:
    took = []
    for number in range(REQUESTS):
        start = time.perf_counter()
        await once(number)
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def growth(found: Parts) -> None:
    """Requests to random tokens of so many cached; messages beside so many idle tunnels."""
    script = found.folder / "tokens.lua"
    first = 0.0
    pid = found.pids["plane"]
    for count in (10, 1_000, 100_000):
        uvloop.run(fill(count))
        script.write_text(
            f'request = function() return wrk.format("GET", "/known-" .. math.random({count}) .. "/") end\n'
        )
        before = cpu_s(pid)
        rate = wrk(f"http://127.0.0.1:{PORTS.plane}", script=script)
        each_us = (cpu_s(pid) - before) / (rate * SECONDS) * 1e6
        first = first or each_us
        print(
            f"{count:>7} cached routes: {each_us:.1f} µs of CPU a request, {each_us / first:.2f} times the first; "
            f"{resident_kib(pid) / 1024:.0f} MiB"
        )
    path = f"/{TOKEN}-echo/"
    few = messages(PORTS.plane, path, 100)
    with held(PORTS.plane, path, 5_000):
        many = messages(PORTS.plane, path, 100)
    print(f"messages beside 5,000 idle tunnels: {many / few:.2f} of those beside none")


def handshakes(found: Parts) -> None:
    """CPU time of connections with one request each, by a full and by a resumed handshake, of nginx's; in turns."""
    ways = {
        "plane": (PORTS.plane_tls, f"/{TOKEN}/small", found.pids["plane_tls"]),
        "nginx": (PORTS.nginx_tls, "/small", found.pids["nginx"]),
    }
    for kind, resumes in (("full", False), ("resumed", True)):
        each_us: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, (port, path, pid) in ways.items():
                before = cpu_s(pid)
                _connect_by_tls(port, path, HANDSHAKES, resumes=resumes)
                each_us[way].append((cpu_s(pid) - before) / HANDSHAKES * 1e6)
        ratio = statistics.median(n / p for p, n in zip(each_us["plane"], each_us["nginx"], strict=True))
        texts = ", ".join(f"{way} {statistics.median(us):.0f} µs" for way, us in each_us.items())
        print(f"connection by a {kind} handshake: {texts}; nginx's to ours {ratio:.2f} (must: 0.7 full, 0.8 resumed)")


def _connect_by_tls(port: int, path: str, count: int, *, resumes: bool) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    session: ssl.SSLSession | None = None
    for number in range(count):
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            assert connection.session_reused is (resumes and number > 0)
            connection.sendall(request)
            while connection.recv(65536):
                pass
            session = connection.session if resumes else None


SINGLE: dict[str, Callable[[Parts], None]] = {
    "memory": memory,
    "workers": workers,
    "latency": latency,
    "tokens": tokens,
    "growth": growth,
    "handshakes": handshakes,
}
