"""What grows without costing: ``python -m bench.growth [ROW…]``.

- ``ended``: connects on a database with a million ended backends, and on an empty one, in turns.
- ``drones``: messages and connects with 2,000 connected drones, and with 200.
- ``routes``: a proxy's cache with a million routes, and with ten.
- ``tunnels``: messages through a proxy with 100,000 idle tunnels, if it may have so many files, and with none.

CPU time per request, which moves much less than rates do on a busy machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from bench.controller import fill, loaded
from bench.controller_load import CLIENTS, CLUSTER, ROUNDS, Bench, cost_us, median, row
from bench.drones import BenchDrone, connected_drones
from bench.growth_of_proxy import routes, tunnels
from bench.processes import run_benchmark, within
from plane.database.embedded.server import embedded_postgres

LIMIT_S = 900.0
ENDED = 1_000_000
DRONES = 2_000
FEW_DRONES = 200
BACKENDS_EACH = 20
PARTS = ("controller", "PostgreSQL")
# As many rows as a backend leaves when it ends. Triggers would write the events one by one.
FILL_ENDED = (
    "SET session_replication_role = replica",
    "INSERT INTO backend (id, cluster, last_status, last_status_number, last_status_time, drone_id, last_keepalive,"
    " state) SELECT 'ended' || n, $2, 'terminated', 70, now() - n * interval '1 second', (SELECT min(id) FROM drone),"
    ' now(), \'{"status": "terminated", "last_status": "ready"}\' FROM generate_series(1, $1::int) n',
    "INSERT INTO backend_state (backend_id, state) SELECT 'ended' || n, '{\"status\": \"ready\"}'"
    " FROM generate_series(1, $1::int) n, generate_series(1, 3)",
    "INSERT INTO backend_action (id, backend_id, drone_id, action, acked_at) SELECT 'ak-' || n, 'ended' || n,"
    " (SELECT min(id) FROM drone), '{}', now() FROM generate_series(1, $1::int) n",
    "INSERT INTO token (token, backend_id, expiration_time, auth, secret_token)"
    " SELECT md5(n::text), 'ended' || n, now(), '{}', md5(n::text) FROM generate_series(1, $1::int) n",
    "INSERT INTO plane_event (type, cluster, backend_id) SELECT 'backend.terminated', $2, 'ended' || n"
    " FROM generate_series(1, $1::int) n",
    "SET session_replication_role = origin",
    "VACUUM ANALYZE",
)


async def ended(folder: Path) -> None:
    """Print what connects, lists and idleness cost beside a million ended backends."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        admin = await asyncpg.connect(url)
        await admin.execute("CREATE DATABASE full_one")
        await admin.close()
        empty, _ = await stack.enter_async_context(loaded(url, folder))
        full, _ = await stack.enter_async_context(loaded(url.replace("///plane", "///full_one"), folder))
        for statement in FILL_ENDED:
            arguments = [value for name, value in (("$1", ENDED), ("$2", CLUSTER)) if name in statement]
            await full.sql[0].execute(statement, *arguments, timeout=LIMIT_S)
        for bench in (empty, full):
            await bench.reopen()
            for number in range(CLIENTS):
                await bench.held_key(number)
        await _compare("new key", {"empty": empty, "full": full}, lambda bench: bench.new_key, 1_000)
        await _compare("existing key", {"empty": empty, "full": full}, lambda bench: bench.held_key, 5_000)
        await _compare(
            "list of live backends", {"empty": empty, "full": full}, lambda bench: bench.list_backends, 100, clients=1
        )
        idle = {name: await _idle_cores(bench, 20.0) for name, bench in (("empty", empty), ("full", full))}
        text = "; ".join(f"{name} {used[0]:.3f}, {used[1]:.3f}" for name, used in idle.items())
        row("nothing to do: cores of the controller and of PostgreSQL", text, must="no growth", aim="")


async def _compare(
    name: str,
    benches: dict[str, Bench],
    work: Callable[[Bench], Callable[[int], Awaitable[object]]],
    count: int,
    clients: int = CLIENTS,
) -> None:
    """Print the CPU time of each request in both databases, taken in turns."""
    costs: dict[str, list[tuple[float, float]]] = {which: [] for which in benches}
    for bench in benches.values():
        await cost_us(bench, work(bench), count // 4, clients)
    for number in range(2 * ROUNDS):
        for which in list(benches) if number % 2 else reversed(benches):
            costs[which].append(await cost_us(benches[which], work(benches[which]), count, clients))
    few, many = costs.values()
    parts = ", ".join(
        f"{part} {median([each[n] for each in few]):.0f} and {median([each[n] for each in many]):.0f} us"
        for n, part in enumerate(PARTS)
    )
    ratio = median([sum(b) / sum(a) for a, b in zip(few, many, strict=True)])
    row(f"{ENDED:,} ended backends, {name}", f"{ratio:.2f} times ({parts})", must="no growth", aim="")


async def _idle_cores(bench: Bench, seconds: float) -> tuple[float, float]:
    before = await bench.cpu_s()
    await asyncio.sleep(seconds)
    after = await bench.cpu_s()
    return (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds


async def drones(folder: Path) -> None:
    """Print what a message of a drone and a connect cost with few and with many drones."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        bench, some = await stack.enter_async_context(loaded(url, folder))
        base = f"http://127.0.0.1:{bench.server.port}"
        await fill(bench, DRONES * BACKENDS_EACH)
        for count in (FEW_DRONES, DRONES):
            more = connected_drones(base, CLUSTER, count - len(some), first=len(some))
            some += await stack.enter_async_context(more)
            cost = await _message_us(bench, some)
            await bench.reopen()
            connect = await cost_us(bench, bench.new_key, 4_000)
            row(
                f"{count:,} drones of {BACKENDS_EACH} backends: CPU time per message; per new key",
                ", ".join(f"{part} {cost[n]:.0f}; {connect[n]:.0f} us" for n, part in enumerate(PARTS)),
                must="no growth",
                aim="",
            )


async def _message_us(bench: Bench, drones: list[BenchDrone]) -> tuple[float, float]:
    """CPU time of the controller and of PostgreSQL for each heartbeat and renewal, at the pace of real drones."""
    rows = await bench.sql[0].fetch("SELECT id FROM backend_key WHERE namespace = 'filled'")
    ids = [found["id"] for found in rows]
    shares = [ids[n * BACKENDS_EACH : (n + 1) * BACKENDS_EACH] for n in range(len(drones))]
    tasks = [
        asyncio.create_task(drone.renew_for_ever(share)) for drone, share in zip(drones, shares, strict=True) if share
    ]
    await asyncio.sleep(3)
    before, start = await bench.cpu_s(), time.perf_counter()
    await asyncio.sleep(15)
    after, taken = await bench.cpu_s(), time.perf_counter() - start
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    messages = taken * len(drones) * (1 / 5 + BACKENDS_EACH / 30)
    return (after[0] - before[0]) / messages * 1e6, (after[1] - before[1]) / messages * 1e6


ROWS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "ended": ended,
    "drones": drones,
    "routes": routes,
    "tunnels": tunnels,
}


async def measure(folder: Path) -> None:
    """Measure the rows that the command line names, or all.

    Raises:
        BenchFailed: something does not run, or takes too long.
    """
    wanted = sys.argv[1:] or list(ROWS)
    if unknown := set(wanted) - set(ROWS):
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(ROWS)}")
    print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
    for name in wanted:
        own = folder / name
        own.mkdir()
        own.chmod(0o755)
        async with within(LIMIT_S, f"measuring {name}"):
            await ROWS[name](own)


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
