"""The console of one controller with 10,000 backends and 200 open pages: ``python -m bench.console`` (a minute).

A controller as a process without API keys, the embedded PostgreSQL, and rows that no drone serves.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg

from bench.controller_load import CLUSTER, controller, row
from bench.processes import BenchFailed, Server, run_benchmark, within
from plane.database.embedded.server import embedded_postgres

BACKENDS = 10_000
PAGES = 200
MEASURED_S = 10.0
# For the first rendering and for caches.
SETTLE_S = 4.0
LIMIT_S = 120.0

FILL = f"""
INSERT INTO node (kind, name, cluster, plane_version, plane_hash, controller, ip, last_connection_start_time)
    SELECT 'Drone', 'dr-bench', '{CLUSTER}', '1', '1', id, '10.0.0.1', now() FROM controller;
INSERT INTO drone (id, ready, last_heartbeat, last_local_time)
    SELECT id, true, now() + interval '1 hour', now() FROM node;
INSERT INTO backend (
    id, cluster, last_status, last_status_time, last_status_number, drone_id, last_keepalive, state
)
    SELECT 'bench-' || n, '{CLUSTER}', 'ready', now() - n * interval '1 s', 50, (SELECT id FROM drone),
        now() + interval '1 day', '{{"status": "ready", "address": "10.0.0.1:1"}}'
    FROM generate_series(1, {BACKENDS}) n;
INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
    SELECT id, '', 'key ' || id, '', now() + interval '1 hour', 1 FROM backend;
ANALYZE;
"""


def _cpu_s(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _share(server: Server) -> float:
    """Return the share of a core that the controller uses, in percent."""
    before = _cpu_s(server)
    await asyncio.sleep(MEASURED_S)
    return (_cpu_s(server) - before) / MEASURED_S * 100


@asynccontextmanager
async def _open_pages(http: aiohttp.ClientSession, addresses: list[str]) -> AsyncIterator[None]:
    async def follow(address: str) -> None:
        async with http.get(address, timeout=aiohttp.ClientTimeout(total=None)) as response:
            if response.status != 200:
                raise BenchFailed(f"{response.status}: {await response.text()}")
            async for _ in response.content.iter_any():
                pass

    tasks = [asyncio.create_task(follow(address)) for address in addresses]
    try:
        await asyncio.sleep(SETTLE_S)
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_view(http: aiohttp.ClientSession, base: str) -> tuple[float, int, str]:
    """Return the median time of the list in ms, its bytes with all of its files, and its text."""
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        async with http.get(f"{base}/console/backends") as response:
            body = await response.read()
        taken.append((time.perf_counter() - started) * 1000)
    text = body.decode()
    size = 0
    for address in {"/console/backends", *re.findall(r'(?:src|href)="(/console/static/[^"]+)"', text)}:
        async with http.get(base + address, auto_decompress=False) as response:
            size += len(await response.read())
    return statistics.median(taken), size, text


async def measure(folder: Path) -> None:
    """Start everything, and print the table.

    Raises:
        BenchFailed: something does not run.
    """
    async with embedded_postgres(folder / "postgres") as url, controller(url, folder) as server:
        connection = await asyncpg.connect(url)
        await connection.execute(FILL)
        await connection.close()
        base = f"http://127.0.0.1:{server.port}"
        async with (
            within(LIMIT_S, "measuring the console"),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
            taken_ms, size, text = await _first_view(http, base)
            row(f"first page of {BACKENDS:,} backends", f"{taken_ms:.0f} ms", must="1 s", aim="50 ms")
            row("the same with its files, compressed", f"{size / 1000:.0f} KB", must="150 KB", aim="50 KB")
            ids = re.findall(r'data-live="[^"]*ids=([^"]+)"', text)[0]
            pages = {
                "overview": ["/console/live/overview"] * PAGES,
                "list of backends": [f"/console/live/backends?ids={ids}"] * PAGES,
                "another backend each": [f"/console/live/backends/bench-{n}" for n in range(1, PAGES + 1)],
            }
            idle = await _share(server)
            for name, addresses in pages.items():
                async with _open_pages(http, [base + address for address in addresses]):
                    share = await _share(server) - idle
                row(f"{PAGES} open pages, {name}", f"{share:.1f} % of a core", must="1 % each", aim="5 % together")


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
