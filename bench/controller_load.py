"""What the controller's benchmark loads it with: a running controller, its database, and clients of both."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from bench.bare import BareClient
from bench.load import HttpClient, http_post
from bench.processes import Server, serving
from plane.random_ids import random_name, random_token

__all__ = [
    "CLIENTS",
    "CLUSTER",
    "ROUNDS",
    "Bench",
    "apart",
    "controller",
    "cost_us",
    "latencies_ms",
    "median",
    "rate",
    "row",
]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CLIENTS = 32
CLUSTER = "bench.example"
EXECUTABLE = {"executable": {"image": "bench/image"}}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

_STARTING = (
    "SELECT EXISTS (SELECT FROM backend WHERE last_status <> 'terminated'"
    " AND last_status IN ('scheduled', 'loading', 'starting', 'waiting'))"
)
# Nobody renews the keys: the controller would be ending their backends all the time.
_KEEP = "UPDATE backend_key SET expires_at = now() + interval '1 day' WHERE expires_at < now() + interval '1 hour'"

# Written once: what is measured is the server.
_HELD = [
    http_post("/ctrl/connect", json.dumps({"key": {"name": f"held-{n}"}, "spawn_config": EXECUTABLE}).encode())
    for n in range(CLIENTS)
]


def row(name: str, value: str, *, must: str, aim: str) -> None:
    """One line of the table in docs/internals/performance.md."""
    print(f"| {name} | {value} | {must} | {aim} |", flush=True)


@asynccontextmanager
async def controller(url: str, folder: Path) -> AsyncIterator[Server]:
    """A controller as a process.

    Raises:
        BenchFailed
    """
    plane = Path(sys.executable).parent / "plane"
    async with serving([str(plane), "controller", "--db", url, "--default-cluster", CLUSTER], folder) as server:
        yield server


@contextmanager
def apart(server: Server) -> Iterator[None]:
    """Keep the controller and its clients, which are this process, on cores of their own, as if clients were elsewhere.

    Else the kernel moves them to one core, where they take turns at each message, while another has nothing to do.
    PostgreSQL may use all cores.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(server.pid, {min(cores)})
        os.sched_setaffinity(0, cores - {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(server.pid, cores)
        os.sched_setaffinity(0, cores)


def median(values: list[float]) -> float:
    return statistics.median(values)


async def rate(clients: int, work: Callable[[int], Awaitable[object]]) -> float:
    """How often a second ``clients`` at once get ``work`` done."""
    done = 0
    end = time.perf_counter() + SECONDS

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(number)
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - start)


async def latencies_ms(count: int, *works: Callable[[], Awaitable[object]]) -> list[float]:
    """The median time that each of ``works`` takes, one after the other in turns."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(count):
        for found, work in zip(times, works, strict=True):
            start = time.perf_counter()
            await work()
            found.append((time.perf_counter() - start) * 1000)
    return [median(found) for found in times]


class Bench:
    """A running controller, its database, and what is needed to load both."""

    def __init__(self, http: list[HttpClient], sql: list[asyncpg.Connection[Any]], server: Server) -> None:
        self.http = http
        self.sql = sql
        self.server = server
        self.bare = BareClient(sql[0], CLUSTER)

    async def reopen(self) -> None:
        """Open the clients' connections again, which the controller closes when they are idle for long."""
        for client in self.http:
            client.close()
        self.http = [await HttpClient.open("127.0.0.1", self.server.port) for _ in self.http]

    async def connect(self, client: int = 0, **request: Any) -> dict[str, Any]:
        status, body = await self.http[client].post("/ctrl/connect", json.dumps(request).encode())
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def new_key(self, client: int = 0) -> dict[str, Any]:
        return await self.connect(client, key={"name": random_name()}, spawn_config=EXECUTABLE)

    async def held_key(self, client: int = 0) -> None:
        status, body = await self.http[client].ask(_HELD[client % CLIENTS])
        assert status == 200, body

    async def list_backends(self, client: int = 0) -> None:
        status, body = await self.http[client].ask(b"GET /ctrl/backends HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == 200, body

    async def bare_insert(self, client: int = 0) -> None:
        await self.sql[client].execute("INSERT INTO bench_floor (text) VALUES ($1)", random_token())

    async def bare_insert_and_notify(self, client: int = 0) -> None:
        await self.sql[client].execute(
            "WITH new AS (INSERT INTO bench_floor (text) VALUES ($1) RETURNING text)"
            " SELECT pg_notify('bench', text) FROM new",
            random_token(),
        )

    async def cpu_s(self) -> tuple[float, float]:
        """Seconds of CPU that the controller and all of PostgreSQL have used."""
        server = _stat(await self.sql[0].fetchval("SELECT pg_backend_pid()"))[1]
        postgres = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _stat(folder.name)[1:2] == [server]]
        return _cpu_s([self.server.pid]), _cpu_s([int(server), *postgres])


async def cost_us(
    bench: Bench, work: Callable[[int], Awaitable[object]], count: int, clients: int = CLIENTS
) -> tuple[float, float]:
    """CPU time for each of ``count`` requests, of the controller and of PostgreSQL, until all backends are ready."""
    remaining = iter(range(count))

    async def client(number: int) -> None:
        for _ in remaining:
            await work(number)

    before = await bench.cpu_s()
    await asyncio.gather(*(client(number) for number in range(clients)))
    while await bench.sql[0].fetchval(_STARTING):
        await asyncio.sleep(0.05)
    after = await bench.cpu_s()
    await bench.sql[0].execute(_KEEP)
    return (after[0] - before[0]) / count * 1e6, (after[1] - before[1]) / count * 1e6


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the process's state on; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pids: list[int]) -> float:
    return sum(int(stat[11]) + int(stat[12]) for pid in pids if (stat := _stat(pid))) / CLOCK_TICKS
