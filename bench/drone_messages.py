"""Messages of drones: what a controller adds to a lone one, and what many cost it.

``python -m bench.drone_messages [PROGRAM]``. A lone renewal, and a lone state event, are compared with the bare
statement and two WebSocket messages. Many drones renew for the cost per message. With PROGRAM, the ``plane`` of another
checkout, both versions take turns on the same database.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from bench.bare_socket import BareSocket, bare_server
from bench.controller_load import CLUSTER, ROUNDS, row
from bench.processes import Server, programs, run_benchmark, serving
from bench.proxy.parts import cpu_s
from plane.database.backends import StateChange, record_states
from plane.database.embedded.server import embedded_postgres
from plane.database.keys import renew
from plane.database.pool import Transaction
from plane.protocol.backend_state import BackendStatus, Loading

DRONES = 20
BACKENDS = 100
LONE = 200
# What 200 drones of 100 backends send, each of which is renewed every 30 s.
RENEWALS_PER_S = 667
LOAD_S = 4.0
_QUESTION = b'{"RenewKey":{"backend":"k6xqveyu5dhqvw","local_time":1790000000000}}'


@dataclass
class Drone:
    """One connection, of which one message at a time is waited for."""

    ws: aiohttp.ClientWebSocketResponse
    backends: list[str]
    received: int = 0
    _waiting: asyncio.Future[None] | None = None
    _events: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def serve(self) -> None:
        async for _ in self.ws:
            self.received += 1
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)

    async def renew(self, backend: str) -> None:
        await self._ask({"RenewKey": {"backend": backend, "local_time": int(time.time() * 1000)}})

    async def report(self, backend: str) -> None:
        event = {"event_id": next(self._events), "backend_id": backend, "timestamp": 1, "state": {"status": "loading"}}
        await self._ask({"BackendEvent": event})

    async def _ask(self, message: dict[str, Any]) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self.ws.send_str(json.dumps(message))
        await self._waiting


@dataclass
class Version:
    """A controller and its drones."""

    name: str
    controller: Server
    drones: list[Drone]


@asynccontextmanager
async def _version(
    name: str, program: Path, url: str, folder: Path, sql: asyncpg.Connection[Any]
) -> AsyncIterator[Version]:
    command = [str(program), "controller", "--db", url, "--default-cluster", CLUSTER, "--name", f"co-{name}"]
    async with serving(command, folder) as controller, AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        drones = []
        for number in range(DRONES):
            path = f"http://127.0.0.1:{controller.port}/ctrl/c/{CLUSTER}/drone-socket"
            ws = await stack.enter_async_context(http.ws_connect(path))
            drone = f"dr-{name}-{number}"
            await ws.send_str(json.dumps({"version": {"version": "0.5.5", "git_hash": ""}, "name": drone}))
            await ws.receive_str()
            drones.append(Drone(ws, await _add_backends(sql, drone)))
        tasks = [asyncio.create_task(drone.serve()) for drone in drones]
        try:
            yield Version(name, controller, drones)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _add_backends(sql: asyncpg.Connection[Any], drone: str) -> list[str]:
    """Give a drone backends, and let no controller take it or them for lost."""
    while True:
        number = await sql.fetchval(
            "UPDATE drone SET last_heartbeat = now() + interval '1 hour' FROM node"
            " WHERE node.id = drone.id AND node.name = $1 RETURNING drone.id",
            drone,
        )
        if number is not None:
            break
        await asyncio.sleep(0.01)
    backends = [f"{drone}-{place}" for place in range(BACKENDS)]
    await sql.execute(
        "WITH b AS (INSERT INTO backend (id, cluster, last_status, last_status_number, last_status_time, drone_id,"
        " last_keepalive, state) SELECT unnest($1::text[]), $2, 'scheduled', $3, now(), $4, now(),"
        ' \'{"status": "scheduled"}\' RETURNING id)'
        " INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)"
        " SELECT id, '', id, '', now() + interval '1 day', 1 FROM b",
        backends,
        CLUSTER,
        BackendStatus.SCHEDULED.number,
        number,
    )
    return backends


async def _lone(versions: list[Version], sql: asyncpg.Connection[Any], bare: BareSocket) -> None:
    """Print what a controller adds to a lone message, taken in turns."""
    times: dict[str, list[float]] = {}

    async def timed(name: str, work: Awaitable[object]) -> None:
        start = time.perf_counter()
        await work
        times.setdefault(name, []).append((time.perf_counter() - start) * 1000)
        # Longer than any batch waits for others.
        await asyncio.sleep(0.03)

    db = Transaction(sql)
    fresh = {version.name: iter([b for drone in version.drones for b in drone.backends]) for version in versions}
    for number in range(LONE):
        await timed("messages", bare.round_trip(_QUESTION))
        for version in versions:
            drone = version.drones[number % DRONES]
            backend = drone.backends[number % BACKENDS]
            await timed(f"renewal {version.name}", drone.renew(backend))
            await timed("renew", renew(db, [backend]))
            await timed(f"event {version.name}", drone.report(next(fresh[version.name])))
            await timed("record", record_states(db, [StateChange(next(fresh[version.name]), Loading())]))
    median = {name: statistics.median(found) for name, found in times.items()}
    for what, statement in (("renewal", "renew"), ("event", "record")):
        floor = median[statement] + median["messages"]
        for version in versions:
            taken = median[f"{what} {version.name}"]
            text = f"{taken:.2f} ms: + {taken - floor:.2f} over statement and messages ({floor:.2f})"
            row(f"lone {what}, p50 ({version.name})", text, must="+ 0.3", aim="0")


async def _load(versions: list[Version]) -> None:
    """Print the CPU time of a controller per renewal while many drones renew, taken in turns."""
    costs: dict[str, list[float]] = {version.name: [] for version in versions}
    for _ in range(ROUNDS):
        for version in versions:
            before = cpu_s(version.controller.pid)
            received = sum(drone.received for drone in version.drones)
            await asyncio.gather(*(_renew_steadily(drone) for drone in version.drones))
            done = sum(drone.received for drone in version.drones) - received
            costs[version.name].append((cpu_s(version.controller.pid) - before) / done * 1e6)
    for version in versions:
        row(
            f"{RENEWALS_PER_S} renewals a second of {DRONES} drones ({version.name})",
            f"{statistics.median(costs[version.name]):.0f} µs of the controller's CPU each",
            must="0.7 of before",
            aim="0.6",
        )


async def _renew_steadily(drone: Drone) -> None:
    interval = DRONES / RENEWALS_PER_S
    end = time.perf_counter() + LOAD_S
    for backend in itertools.cycle(drone.backends):
        if time.perf_counter() > end:
            return
        renewal = {"backend": backend, "local_time": int(time.time() * 1000)}
        await drone.ws.send_str(json.dumps({"RenewKey": renewal}))
        await asyncio.sleep(interval)


async def measure(folder: Path) -> None:
    """Start everything, and print the table.

    Raises:
        BenchFailed: something does not run.
    """
    print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        sql = await asyncpg.connect(url)
        stack.push_async_callback(sql.close)
        versions = [
            await stack.enter_async_context(_version(name, program, url, folder, sql))
            for name, program in programs().items()
        ]
        bare = await BareSocket.open(stack.enter_context(bare_server()))
        await _lone(versions, sql, bare)
        await _load(versions)


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
