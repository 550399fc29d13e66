"""The load: wrk for HTTP, and clients of our own for tunnels and single requests. All on the load's core."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from bench.proxy.parts import LOAD_CORE, PORTS

__all__ = [
    "BROWSER_HEADERS",
    "SECONDS",
    "fill",
    "hold",
    "messages",
    "ping_for",
    "until_served",
    "wrk",
    "wrk_latency_ms",
]

SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
HOST = f"localhost:{PORTS.plane}"
# What Chromium sends with a fetch.
BROWSER_HEADERS = {
    "Connection": "keep-alive",
    "sec-ch-ua-platform": '"Linux"',
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
    "Safari/537.36",
    "sec-ch-ua": '"Chromium";v="140", "Not=A?Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "Accept": "*/*",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "Referer": f"http://{HOST}/",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9",
}


def _wrk(url: str, connections: int, headers: dict[str, str], script: Path | None, *options: str) -> str:
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *options]
    for name, value in {"Host": HOST, **headers}.items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in out or re.search(r"Socket errors: .*(connect|read|write|timeout) [1-9]", out):
        raise SystemExit(f"not all requests were answered well:\n{out}")
    return out


def wrk(url: str, connections: int = 64, headers: dict[str, str] | None = None, script: Path | None = None) -> float:
    """Requests a second."""
    out = _wrk(url, connections, headers or {}, script)
    return float(next(line.split()[1] for line in out.splitlines() if line.startswith("Requests/sec")))


def wrk_latency_ms(url: str, rate: float, script: Path, connections: int = 64) -> float:
    """The 99th percentile at about ``rate`` requests a second."""
    # Each connection waits between its requests: wrk has no rate of its own.
    script.write_text(f"function delay() return math.random(0, {round(2 * 1000 * connections / rate)}) end\n")
    out = _wrk(url, connections, {}, script, "--latency")
    value, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", out)[0]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


class Ping(asyncio.Protocol):
    """Upgrades, then sends a message each time the last has come back; or none, if it is idle."""

    MESSAGE = b"\x81\x85\x00\x00\x00\x00hello"

    def __init__(self, path: str, *, idle: bool) -> None:
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()
        )
        self.idle = idle
        self.count = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.count += 1
        if not self.idle:
            self.transport.write(self.MESSAGE)  # type: ignore[attr-defined]


async def open_pings(port: int, path: str, count: int, *, idle: bool = False) -> list[Ping]:
    """So many open tunnels."""
    loop = asyncio.get_running_loop()
    pings = [Ping(path, idle=idle) for _ in range(count)]
    for ping in pings:
        await loop.create_connection(functools.partial(_itself, ping), "127.0.0.1", port)
    async with asyncio.timeout(30):
        while any(ping.count < 0 for ping in pings):
            await asyncio.sleep(0.05)
    return pings


def _itself(ping: Ping) -> Ping:
    return ping


async def ping_for(port: int, path: str, connections: int) -> float:
    """Messages a second through ``port``."""
    pings = await open_pings(port, path, connections)
    await asyncio.sleep(0.5)
    before, start = sum(ping.count for ping in pings), time.perf_counter()
    await asyncio.sleep(SECONDS)
    rate = (sum(ping.count for ping in pings) - before) / (time.perf_counter() - start)
    for ping in pings:
        ping.transport.close()
    return rate


async def hold(port: int, path: str, count: int) -> None:
    """Hold idle tunnels until standard input ends; says so when they are open."""
    pings = await open_pings(port, path, count, idle=True)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for ping in pings:
        ping.transport.close()


def messages(port: int, path: str, connections: int = 100) -> float:
    """Messages a second, by a process of its own on the load's core."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "bench.proxy", "ping", str(port), path]
    out = subprocess.run([*command, str(connections)], check=True, capture_output=True, text=True).stdout
    return float(out)


async def fill(count: int) -> None:
    """Have the proxy know so many tokens, by a request for each."""
    numbers = iter(range(1, count + 1))

    async def ask_some() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORTS.plane)
        for number in numbers:
            writer.write(f"GET /known-{number}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\nhello")
        writer.close()

    await asyncio.gather(*(ask_some() for _ in range(100)))


def until_served(url: str) -> None:
    """Return once ``url`` is answered with 200."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {HOST}", url]
        if subprocess.run(command, check=False, capture_output=True, text=True).stdout == "200":
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} is not served")
