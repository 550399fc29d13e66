"""One controller against its floor: ``python -m bench.controller`` (``make bench-controller``).

A controller as a process, the embedded PostgreSQL with its usual durability, drones of this file's own that answer at
once, and bare asyncpg clients for the floor, which takes turns with the controller in every round. Medians of the
rounds. All of it shares the machine, so rates say little alone; the ratios do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.bare import BareClient
from bench.drones import BenchDrone, connected_drones
from bench.load import HttpClient, Watcher, http_post
from plane.database.embedded_postgres import embedded_postgres
from plane.identity import random_name, random_token

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CLIENTS = 32
PORT = 29280
CLUSTER = "bench.example"
EXECUTABLE = {"executable": {"image": "bench/image"}}
# Written once: what is measured is the server.
HELD = [
    http_post("/ctrl/connect", json.dumps({"key": {"name": f"held-{n}"}, "spawn_config": EXECUTABLE}).encode())
    for n in range(CLIENTS)
]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


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

    def __init__(self, http: list[HttpClient], sql: list[asyncpg.Connection[Any]], pid: int) -> None:
        self.http = http
        self.sql = sql
        self.pid = pid
        self.bare = BareClient(sql[0], CLUSTER)

    async def connect(self, client: int = 0, **request: Any) -> dict[str, Any]:
        status, body = await self.http[client].post("/ctrl/connect", json.dumps(request).encode())
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def new_key(self, client: int = 0) -> dict[str, Any]:
        return await self.connect(client, key={"name": random_name()}, spawn_config=EXECUTABLE)

    async def held_key(self, client: int = 0) -> None:
        status, body = await self.http[client].ask(HELD[client])
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
        return _cpu_s([self.pid]), _cpu_s([int(server), *postgres])


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the process's state on; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pids: list[int]) -> float:
    return sum(int(stat[11]) + int(stat[12]) for pid in pids if (stat := _stat(pid))) / CLOCK_TICKS


def row(name: str, value: str, *, must: str, aim: str) -> None:
    """One line of the table in docs/performance.md."""
    print(f"| {name} | {value} | {must} | {aim} |", flush=True)


async def rates(bench: Bench) -> None:
    """Connects against bare inserts, 32 of each at once."""
    ours: dict[str, list[float]] = {"held": [], "new": []}
    ratios: dict[str, list[float]] = {"held": [], "new": []}
    for number in range(CLIENTS):
        await bench.held_key(number)
    for _ in range(ROUNDS):
        for name, work, floor in (
            ("held", bench.held_key, bench.bare_insert),
            ("new", bench.new_key, bench.bare_insert_and_notify),
        ):
            ours[name].append(await rate(CLIENTS, work))
            ratios[name].append(ours[name][-1] / await rate(CLIENTS, floor))
    held, new = median(ours["held"]), median(ours["new"])
    row("connect, existing key, 32 clients", f"{median(ratios['held']):.2f} ({held:.0f}/s)", must="0.8", aim="1.2")
    row("connect, new key, 32 clients", f"{median(ratios['new']):.2f} ({new:.0f}/s)", must="0.35", aim="0.8")


async def latencies(bench: Bench) -> None:
    """What one client waits beyond the bare statements."""
    count = 200 * ROUNDS
    held, bare_held = await latencies_ms(count, bench.held_key, partial(bench.bare.look_up, "held-0"))
    new, bare_new = await latencies_ms(count, bench.new_key, bench.bare.new_key)
    row(
        "connect latency p50, one client, over the floor: existing; new",
        f"+ {held - bare_held:.1f}; + {new - bare_new:.1f} ms",
        must="+ 1.0; + 3.0 ms",
        aim="+ 0.5; + 1.5 ms",
    )


async def burst(bench: Bench, drones: list[BenchDrone]) -> float:
    """Seconds from 32 new keys at once to all of them ready in the database."""
    start = time.perf_counter()
    answers = await asyncio.gather(*(bench.new_key(client) for client in range(CLIENTS)))
    await asyncio.gather(*(BenchDrone.until_stored(drones, answer["backend_id"]) for answer in answers))
    return time.perf_counter() - start


async def heartbeats(bench: Bench, drones: list[BenchDrone], seconds: float) -> None:
    """Drones of 100 backends each: heartbeats every 5 s, renewals every 30 s."""
    rows = await bench.sql[0].fetch("SELECT id FROM backend_key WHERE namespace = 'filled' LIMIT $1", 100 * len(drones))
    ids = [found["id"] for found in rows]
    tasks = [asyncio.create_task(drone.renew_for_ever(ids[n * 100 : (n + 1) * 100])) for n, drone in enumerate(drones)]
    await asyncio.sleep(2)
    before, start = await bench.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, taken = await bench.cpu_s(), time.perf_counter() - start
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    controller, postgres = ((b - a) / taken for a, b in zip(before, after, strict=True))
    row(
        f"{len(drones)} drones of 100 backends each, beating and renewing",
        f"{controller:.2f} core of the controller, {postgres:.2f} of PostgreSQL",
        must="0.5; 0.3",
        aim="half of that",
    )


async def watchers(bench: Bench, drones: list[BenchDrone]) -> None:
    """A state event, from the drone's word to 1,000 readers of one backend's stream."""
    p99 = []
    for _ in range(ROUNDS):
        backend = (await bench.new_key())["backend_id"]
        await BenchDrone.until_stored(drones, backend)
        streams = [await Watcher.open("127.0.0.1", PORT, backend) for _ in range(1000)]
        await asyncio.gather(*(stream.saw("ready") for stream in streams))
        start = time.perf_counter()
        terminating = {"status": "terminating", "last_status": "ready", "termination": "soft", "reason": "external"}
        await drones[0].report(backend, terminating)
        times = sorted(await asyncio.gather(*(stream.saw("terminating") for stream in streams)))
        p99.append((times[989] - start) * 1000)
        for stream in streams:
            stream.close()
    row("state event of a drone to 1,000 watchers' streams, p99", f"{median(p99):.1f} ms", must="20 ms", aim="5 ms")


async def fill(bench: Bench, backends: int) -> None:
    """So many live backends with keys, on the drones that are there."""
    await bench.sql[0].execute(
        "WITH drones AS (SELECT array_agg(id) AS ids FROM drone), b AS ("
        "  INSERT INTO backend (id, cluster, last_status, last_status_number, last_status_time, drone_id,"
        "    cluster_address, last_keepalive, state)"
        "  SELECT 'filled' || n, 'bench.example', 'ready', 50, now(), ids[1 + n % cardinality(ids)], '127.0.0.1:1',"
        '    now(), \'{"status": "ready", "address": "127.0.0.1:1"}\''
        "  FROM drones, generate_series(1, $1::int) n RETURNING id)"
        " INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)"
        " SELECT id, 'filled', id, '', now() + interval '1 day', 1 FROM b",
        backends,
    )
    await bench.sql[0].execute("VACUUM ANALYZE")


@contextlib.asynccontextmanager
async def controller(url: str, port: int, folder: Path) -> AsyncIterator[int]:
    """A controller as a process; yields its id."""
    plane = Path(sys.executable).parent / "plane"
    command = [str(plane), "controller", "--db", url, "--port", str(port), "--default-cluster", CLUSTER]
    with (folder / f"controller-{port}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PLANE_LOG": "warning"})
    try:
        while True:
            with contextlib.suppress(OSError):
                client = await HttpClient.open("127.0.0.1", port)
                # It listens before its database is ready, and answers after that.
                await client.post("/", b"")
                client.close()
                break
            await asyncio.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


async def filled(bench: Bench) -> None:
    """The same with 100,000 live backends: new keys against new keys before, in the same run."""
    empty = [await rate(CLIENTS, bench.new_key) for _ in range(ROUNDS)]
    await fill(bench, 100_000)
    full = [await rate(CLIENTS, bench.new_key) for _ in range(ROUNDS)]
    row("new keys with 100,000 live backends, of empty", f"{median(full) / median(empty):.2f}", must="0.75", aim="0.95")


async def two_controllers(bench: Bench, other: list[HttpClient]) -> None:
    """Both share two cores with PostgreSQL, drones and clients, so this is a lower bound."""
    both = [*bench.http[: CLIENTS // 2], *other]
    alone = bench.http
    ratios = []
    for _ in range(ROUNDS):
        bench.http = alone
        one = await rate(CLIENTS, bench.held_key)
        bench.http = both
        ratios.append(await rate(CLIENTS, bench.held_key) / one)
    bench.http = alone
    row("two controllers on two cores to one, existing key", f"{median(ratios):.1f} times", must="1.6", aim="1.9")


async def measure(folder: Path) -> None:
    """Start everything, and print the table."""
    base = f"http://127.0.0.1:{PORT}"
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        pid = await stack.enter_async_context(controller(url, PORT, folder))
        http = [await HttpClient.open("127.0.0.1", PORT) for _ in range(CLIENTS)]
        sql = [await asyncpg.connect(url) for _ in range(CLIENTS)]
        bench = Bench(http, sql, pid)
        await bench.bare.add_silent_drone()
        await sql[0].execute("CREATE TABLE bench_floor (id serial PRIMARY KEY, text text NOT NULL)")
        drones = await stack.enter_async_context(connected_drones(base, CLUSTER, 20))
        print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
        await rates(bench)
        await latencies(bench)
        bursts = [await burst(bench, drones) for _ in range(5)]
        row("32 new keys at once: all reported ready", f"{median(bursts):.2f} s", must="0.5 s", aim="0.15 s")
        await filled(bench)
        await watchers(bench, drones)
        async with controller(url, PORT + 1, folder):
            await two_controllers(bench, [await HttpClient.open("127.0.0.1", PORT + 1) for _ in range(CLIENTS // 2)])
        drones += await stack.enter_async_context(connected_drones(base, CLUSTER, 180, first=20))
        await heartbeats(bench, drones, 10)


def main() -> None:
    """Entry point."""
    with tempfile.TemporaryDirectory(prefix="plane-bench-") as folder:
        Path(folder).chmod(0o755)
        uvloop.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
