"""One controller against its floor: ``python -m bench.controller`` (``make bench-controller``).

A controller as a process, the embedded PostgreSQL with its usual durability, drones of this file's own that answer at
once, and bare asyncpg clients for the floor, which takes turns with the controller in every round. Medians of the
rounds. All of it shares the machine, so rates say little alone; the ratios do.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from bench.controller_load import CLIENTS, CLUSTER, ROUNDS, Bench, apart, controller, latencies_ms, median, rate, row
from bench.controller_pairs import limited_pair, pair
from bench.controller_streams import watchers
from bench.drones import BenchDrone, connected_drones
from bench.load import HttpClient
from bench.processes import run_benchmark, within
from bench.slow_disk import SLOWER_BY_MS, postgres_on_a_slow_disk
from plane.database.embedded.server import embedded_postgres
from plane.protocol.backend_state import BackendStatus

# Of any row: far above what it takes on a busy machine.
ROW_LIMIT_S = 300.0


async def rates(bench: Bench, disk: str = "") -> None:
    """Connects against bare inserts, 32 of each at once. ``disk`` is said of both rows."""
    ours: dict[str, list[float]] = {"held": [], "new": []}
    ratios: dict[str, list[float]] = {"held": [], "new": []}
    for number in range(CLIENTS):
        await bench.held_key(number)
    for _ in range(ROUNDS):
        for name, work, floor in (
            ("held", bench.held_key, bench.bare_insert),
            ("new", bench.new_key, bench.bare_insert_and_notify),
        ):
            with apart(bench.server):
                ours[name].append(await rate(CLIENTS, work))
                ratios[name].append(ours[name][-1] / await rate(CLIENTS, floor))
    for name, connect, must, aim in (("held", "existing key", "0.8", "1.2"), ("new", "new key", "0.35", "0.8")):
        measured = f"{median(ratios[name]):.2f} ({median(ours[name]):.0f}/s)"
        row(f"connect, {connect}, 32 clients{disk}", measured, must=must, aim=aim)


async def latencies(bench: Bench) -> None:
    """What one client waits beyond the bare statements."""
    count = 200 * ROUNDS
    held, bare_held = await latencies_ms(count, bench.held_key, partial(bench.bare.reuse, "held-0"))
    new, bare_new = await latencies_ms(count, bench.new_key, bench.bare.new_key)
    row(
        "connect latency p50, one client, over the floor: existing; new",
        f"{held - bare_held:+.1f}; {new - bare_new:+.1f} ms",
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
    # Nobody renews what the other rows have left: the controller would be ending it all the time.
    await bench.sql[0].execute("UPDATE backend_key SET expires_at = now() + interval '1 day'")
    await bench.sql[0].execute("UPDATE drone SET last_heartbeat = now()")
    await bench.sql[0].execute(
        "UPDATE backend b SET last_status = 'terminated', last_status_number = $1 WHERE last_status <> 'terminated'"
        " AND NOT EXISTS (SELECT FROM backend_key k WHERE k.id = b.id)",
        BackendStatus.TERMINATED.number,
    )
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


async def filled(bench: Bench) -> None:
    """The same with 100,000 live backends: new keys against new keys before, in the same run."""
    with apart(bench.server):
        empty = [await rate(CLIENTS, bench.new_key) for _ in range(ROUNDS)]
        await fill(bench, 100_000)
        full = [await rate(CLIENTS, bench.new_key) for _ in range(ROUNDS)]
    row("new keys with 100,000 live backends, of empty", f"{median(full) / median(empty):.2f}", must="0.75", aim="0.95")


async def bursts(bench: Bench, drones: list[BenchDrone]) -> None:
    """New keys all at once."""
    taken = [await burst(bench, drones) for _ in range(5)]
    row("32 new keys at once: all reported ready", f"{median(taken):.2f} s", must="0.5 s", aim="0.15 s")


@contextlib.asynccontextmanager
async def loaded(url: str, folder: Path) -> AsyncIterator[tuple[Bench, list[BenchDrone]]]:
    """A controller on the database ``url``, 20 drones that are connected to it, and clients of both.

    Raises:
        BenchFailed: something does not run.
    """
    async with controller(url, folder) as server:
        http = [await HttpClient.open("127.0.0.1", server.port) for _ in range(CLIENTS)]
        sql = [await asyncpg.connect(url) for _ in range(CLIENTS)]
        bench = Bench(http, sql, server)
        await bench.bare.add_silent_drone()
        await sql[0].execute("CREATE TABLE bench_floor (id serial PRIMARY KEY, text text NOT NULL)")
        async with connected_drones(f"http://127.0.0.1:{server.port}", CLUSTER, 20) as drones:
            yield bench, drones


async def slow_disk(folder: Path) -> None:
    """The first two rows where the disk takes longer."""
    async with postgres_on_a_slow_disk(folder) as url:
        if url is None:
            print("The rows of a slow disk are left out: there is no C compiler.", file=sys.stderr)
            return
        async with loaded(url, folder) as (bench, _):
            await rates(bench, f", each sync {SLOWER_BY_MS} ms slower")


async def measure(folder: Path) -> None:
    """Start everything, and print the table.

    Raises:
        BenchFailed: something does not run, or a row takes too long.
    """
    print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
    async with embedded_postgres(folder / "postgres") as url, loaded(url, folder) as (bench, drones):
        for rows in (
            partial(rates, bench),
            partial(slow_disk, folder),
            partial(latencies, bench),
            partial(bursts, bench, drones),
            partial(filled, bench),
            partial(watchers, bench, drones, folder),
            partial(pair, bench, url, folder),
            partial(limited_pair, bench, url, folder),
        ):
            async with within(ROW_LIMIT_S, f"measuring {rows.func.__name__}"):
                await rows()
        base = f"http://127.0.0.1:{bench.server.port}"
        async with within(ROW_LIMIT_S, "measuring heartbeats"), connected_drones(base, CLUSTER, 180, first=20) as more:
            await heartbeats(bench, drones + more, 10)


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
