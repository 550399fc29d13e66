"""The first request of a token, whose route no proxy has: ``python -m bench.cold_tokens [PROGRAM]``.

A proxy, a controller and the embedded PostgreSQL as processes. One client's wait is compared with its floor: one bare
statement, two WebSocket messages, and a request whose route is cached. With PROGRAM, the ``plane`` of another checkout,
both versions take turns on the same database.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.bare_socket import BareSocket, bare_server
from bench.controller_load import ROUNDS, SECONDS, row
from bench.load import HttpClient
from bench.processes import Server, programs, run_benchmark, serving
from bench.proxy.parts import cpu_s
from plane.database.backends import routes
from plane.database.embedded.server import embedded_postgres
from plane.database.pool import Transaction
from plane.protocol.backend_state import BackendStatus

CLUSTER = "bench.example"
CLIENTS = 32
LATENCIES = 300
# More than both versions can look up in all rounds.
TOKENS = 400_000
_QUESTION = b'{"RouteInfoRequest":{"token":"cold-000000"}}'


class _Backend(asyncio.Protocol):
    """A backend that responds to everything at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@dataclass
class Version:
    """A controller and a proxy of one version."""

    name: str
    controller: Server
    proxy: Server
    clients: list[HttpClient]

    async def open_clients(self) -> None:
        """Open the clients' connections, each of which must be used soon."""
        self.clients += [await HttpClient.open("127.0.0.1", self.proxy.port) for _ in range(CLIENTS)]

    async def request(self, client: int, token: str) -> None:
        head = f"GET /{token}/ HTTP/1.1\r\nHost: {CLUSTER}\r\n\r\n".encode()
        status, body = await self.clients[client].ask(head)
        assert status == 200, (status, body)


@asynccontextmanager
async def _version(name: str, program: Path, url: str, folder: Path) -> AsyncIterator[Version]:
    command = [str(program), "controller", "--db", url, "--default-cluster", CLUSTER, "--name", f"co-{name}"]
    async with serving(command, folder) as controller:
        command = [str(program), "proxy", "--host", "127.0.0.1", "--cluster", CLUSTER, "--name", f"px-{name}"]
        command += ["--controller-url", f"http://127.0.0.1:{controller.port}"]
        async with serving(command, folder, "--http-port") as proxy:
            yield Version(name, controller, proxy, [])


async def _add_tokens(sql: asyncpg.Connection[Any], backend_port: int) -> None:
    drone = await sql.fetchval(
        "WITH n AS (INSERT INTO node (kind, name, cluster, plane_version, plane_hash, ip)"
        " VALUES ('Drone', 'dr-bare', $1, '', '', '127.0.0.1') RETURNING id)"
        " INSERT INTO drone (id, ready, last_local_time, last_heartbeat)"
        " SELECT id, false, now(), now() + interval '1 hour' FROM n RETURNING id",
        CLUSTER,
    )
    await sql.execute(
        "INSERT INTO backend (id, cluster, last_status, last_status_number, last_status_time, drone_id,"
        " cluster_address, last_keepalive, state) VALUES ('bench', $1, 'ready', $2, now(), $3, $4::text, now(),"
        " jsonb_build_object('status', 'ready', 'address', $4::text))",
        CLUSTER,
        BackendStatus.READY.number,
        drone,
        f"127.0.0.1:{backend_port}",
    )
    # Without a key it would be taken for lost.
    await sql.execute(
        "INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)"
        " VALUES ('bench', '', 'bench', '', now() + interval '1 day', 1)"
    )
    await sql.execute(
        "INSERT INTO token (token, backend_id, auth, secret_token, expiration_time) SELECT 'cold-' || n, 'bench',"
        " '{}', 'secret', now() + interval '1 day' FROM generate_series(1, $1::int) n",
        TOKENS,
    )
    await sql.execute("VACUUM ANALYZE")


async def _latencies(
    versions: list[Version], tokens: Iterator[str], sql: asyncpg.Connection[Any], bare: BareSocket
) -> None:
    """Print the wait of one client over its floor, taken in turns."""
    times: dict[str, list[float]] = {}

    async def timed(name: str, work: Any) -> None:
        start = time.perf_counter()
        await work
        times.setdefault(name, []).append((time.perf_counter() - start) * 1000)

    db = Transaction(sql)
    warm = next(tokens)
    for version in versions:
        await version.request(0, warm)
    for _ in range(LATENCIES):
        await timed("statement", routes(db, [next(tokens)]))
        await timed("messages", bare.round_trip(_QUESTION))
        for version in versions:
            await timed(f"warm {version.name}", version.request(0, warm))
            await timed(f"cold {version.name}", version.request(0, next(tokens)))
            await asyncio.sleep(0.002)
    median = {name: statistics.median(found) for name, found in times.items()}
    floor = median["statement"] + median["messages"]
    for version in versions:
        cold, cached = median[f"cold {version.name}"], median[f"warm {version.name}"]
        row(
            f"cold token, one client, p50 ({version.name})",
            f"{cold:.2f} ms: + {cold - floor:.2f} over statement and messages ({floor:.2f}), of which a cached route"
            f" takes {cached:.2f}",
            must="+ 0.3",
            aim="+ 0.15",
        )


async def _rates(versions: list[Version], tokens: Iterator[str]) -> None:
    """Print rate and CPU time of 32 clients, with a new token for each request and with one for all, taken in turns."""
    rates: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    one = next(tokens)
    for _ in range(ROUNDS):
        for version in versions:
            rates.setdefault((version.name, "cold"), []).append(await _rate(version, tokens))
            rates.setdefault((version.name, "cached"), []).append(await _rate(version, itertools.repeat(one)))
    for (name, kind), found in rates.items():
        rate, proxy, controller = (statistics.median(each) for each in zip(*found, strict=True))
        row(
            f"{kind} tokens, 32 clients ({name})",
            f"{rate:.0f}/s; CPU {proxy + controller:.0f} µs: proxy {proxy:.0f}, controller {controller:.0f}",
            must="half of before" if kind == "cold" else "",
            aim="a third" if kind == "cold" else "",
        )


async def _rate(version: Version, tokens: Iterator[str]) -> tuple[float, float, float]:
    """Return requests per second, and the CPU time per request of proxy and controller in µs."""
    servers = (version.proxy, version.controller)
    before = [cpu_s(server.pid) for server in servers]
    start = time.perf_counter()
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < start + SECONDS:
            await version.request(number, next(tokens))
            done += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    took = time.perf_counter() - start
    proxy, controller = ((cpu_s(s.pid) - b) / done * 1e6 for s, b in zip(servers, before, strict=True))
    return done / took, proxy, controller


async def measure(folder: Path) -> None:
    """Start everything, and print the table.

    Raises:
        BenchFailed: something does not run.
    """
    print("| workload | measured | must | aim |\n| --- | --- | --- | --- |", flush=True)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        server = await asyncio.get_running_loop().create_server(_Backend, "127.0.0.1", 0)
        versions = [
            await stack.enter_async_context(_version(name, program, url, folder))
            for name, program in programs().items()
        ]
        sql = await asyncpg.connect(url)
        await _add_tokens(sql, server.sockets[0].getsockname()[1])
        tokens = (f"cold-{number}" for number in itertools.count(1))
        bare = await BareSocket.open(stack.enter_context(bare_server()))
        for version in versions:
            await version.open_clients()
            await asyncio.gather(*(version.request(number, next(tokens)) for number in range(CLIENTS)))
        await _latencies(versions, tokens, sql, bare)
        await _rates(versions, tokens)


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
