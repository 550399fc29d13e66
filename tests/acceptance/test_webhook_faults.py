"""Webhooks while controllers are killed and stopped: nothing is lost, order is kept, duplicates have the same id.

`WEBHOOK_FAULTS=long` gives the first test 10,000 events, and a kill every two seconds for a minute; by default it has
a tenth of that.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from harness.clusters import free_port
from harness.program import Program
from harness.webhook_receiver import Receiver, webhook_receiver

LONG = os.environ.get("WEBHOOK_FAULTS") == "long"
KILLS, BACKENDS = (30, 2_000) if LONG else (4, 300)
KILL_INTERVAL_S = 2.0
PER_BACKEND = 5
LIMIT_S = 400.0 if LONG else 80.0


class Controllers:
    """Controllers on one database, each a process, with the names co-0, co-1, …"""

    def __init__(self, url: str, folder: Path, count: int) -> None:
        self._url = url
        self._folder = folder
        self.ports = [free_port() for _ in range(count)]
        self.running: dict[str, Program] = {}
        for number in range(count):
            self.start(f"co-{number}")

    def start(self, name: str) -> None:
        port = str(self.ports[int(name.removeprefix("co-"))])
        arguments = ["controller", "--db", self._url, "--name", name, "--port", port]
        arguments += ["--webhook-allow-network", "127.0.0.0/8"]
        self.running[name] = Program(arguments, self._folder, name)

    async def until_one_listens(self) -> str:
        """The URL of a controller that responds."""
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            while True:
                for port in self.ports:
                    try:
                        async with http.get(f"http://127.0.0.1:{port}/pub/health") as response:
                            if response.status == 200:
                                return f"http://127.0.0.1:{port}"
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.05)

    def end(self) -> None:
        for each in self.running.values():
            each.process.send_signal(signal.SIGCONT)
            each.stop(signal.SIGKILL)


@asynccontextmanager
async def delivering(
    url: str, folder: Path, count: int
) -> AsyncIterator[tuple[Controllers, Receiver, asyncpg.Connection]]:
    """Controllers with one webhook, its receiver, and the database."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(webhook_receiver())
        controllers = Controllers(url, folder, count)
        stack.callback(controllers.end)
        base = await controllers.until_one_listens()
        async with aiohttp.ClientSession() as http:
            config = {"url": receiver.url, "types": ["backend.*"]}
            async with http.put(f"{base}/ctrl/webhooks/hook", json=config) as response:
                assert response.status == 200, await response.text()
                receiver.secret = (await response.json())["secret"]
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        yield controllers, receiver, connection


async def add_events(connection: asyncpg.Connection, backends: int, per_backend: int, text: str = "") -> None:
    """Events of many backends, in several transactions, as the triggers write them."""
    for number in range(1, per_backend + 1):
        await connection.execute(
            "INSERT INTO plane_event (type, backend_id, data)"
            " SELECT 'backend.ready', 'b' || b, jsonb_build_object('number', $2::int, 'text', $3::text)"
            " FROM generate_series(1, $1::int) b",
            backends,
            number,
            text,
        )


async def holder(connection: asyncpg.Connection) -> str | None:
    """The name of the controller that delivers."""
    found = await connection.fetchval("SELECT holder FROM plane_webhook WHERE lease_ends_at > now()")
    return None if found is None else str(found).split()[0]


def check(receiver: Receiver, backends: int, per_backend: int) -> int:
    """Everything arrived, in order for each backend; returns how many messages came more than once."""
    bodies: dict[str, Any] = {}
    order: dict[str, list[int]] = defaultdict(list)
    for identifier, body in receiver.messages:
        if identifier in bodies:
            assert bodies[identifier] == body
        else:
            bodies[identifier] = body
            order[body["data"]["backend"]].append(body["data"]["data"]["number"])
    assert receiver.invalid == []
    assert len(bodies) == backends * per_backend
    assert set(map(tuple, order.values())) == {tuple(range(1, per_backend + 1))}
    return len(receiver.messages) - len(bodies)


@pytest.mark.timeout(LIMIT_S + 60)
async def test_nothing_is_lost_while_the_delivering_controller_is_killed_again_and_again(
    postgres_url: str, tmp_path: Path
) -> None:
    chance = random.Random(7)
    total = BACKENDS * PER_BACKEND
    async with delivering(postgres_url, tmp_path, 3) as (controllers, receiver, connection):

        async def respond(_: dict[str, Any]) -> web.Response:
            await asyncio.sleep(chance.random() * 0.02)
            return web.Response(status=500 if chance.random() < 0.002 else 200)

        receiver.respond = respond

        async def write() -> None:
            writer = await asyncpg.connect(postgres_url)
            await add_events(writer, BACKENDS, PER_BACKEND)
            await writer.close()

        async def kill() -> None:
            for _ in range(KILLS):
                name = await holder(connection)
                victim = name or f"co-{chance.randrange(3)}"
                controllers.running[victim].process.kill()
                controllers.running[victim].process.wait()
                controllers.start(victim)
                # The rest of its lease is cut, so that somebody delivers between two kills.
                await connection.execute("UPDATE plane_webhook SET lease_ends_at = now()")
                await asyncio.sleep(KILL_INTERVAL_S)

        await asyncio.gather(write(), kill())
        await receiver.until(lambda: len(set(receiver.ids())) == total, LIMIT_S)
        check(receiver, BACKENDS, PER_BACKEND)
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT delivered FROM plane_webhook") != total:
                await asyncio.sleep(0.05)
        assert await connection.fetchval("SELECT count(*) FROM plane_webhook_pending") == 0


async def test_a_stopped_controller_loses_the_webhook_and_changes_nothing_when_it_continues(
    postgres_url: str, tmp_path: Path
) -> None:
    async with delivering(postgres_url, tmp_path, 2) as (controllers, receiver, connection):
        proceed = asyncio.Event()

        async def respond(_: dict[str, Any]) -> web.Response:
            await proceed.wait()
            return web.Response()

        receiver.respond = respond
        await add_events(connection, 4, 3)
        # One for each backend. One that was not yet written would be written when the controller continues.
        await receiver.until(lambda: len(receiver.attempts) == 4)
        name = await holder(connection)
        assert name is not None
        stopped = controllers.running[name].process
        stopped.send_signal(signal.SIGSTOP)
        receiver.respond = lambda _: web.Response()
        # The other one takes over when the lease has ended, and delivers everything.
        await receiver.until(lambda: len(set(receiver.ids())) == 12, 60)
        assert await holder(connection) not in (None, name)
        check(receiver, 4, 3)
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT delivered FROM plane_webhook") != 12:
                await asyncio.sleep(0.05)
        epoch = await connection.fetchval("SELECT epoch FROM plane_webhook")
        attempts = len(receiver.attempts)
        proceed.set()
        stopped.send_signal(signal.SIGCONT)
        # It has read the end of its lease once it takes part again.
        await add_events(connection, 1, 1)
        await receiver.until(lambda: len(receiver.attempts) > attempts)
        assert await connection.fetchval("SELECT epoch FROM plane_webhook") == epoch
        assert len(receiver.attempts) == attempts + 1
        assert receiver.attempts[-1][1]["data"]["data"]["number"] == 1


async def test_ten_thousand_undelivered_events_take_no_memory_and_then_arrive(
    postgres_url: str, tmp_path: Path
) -> None:
    async with delivering(postgres_url, tmp_path, 1) as (controllers, receiver, connection):
        receiver.respond = lambda _: web.Response(status=503)
        process = controllers.running["co-0"].process.pid
        # 50 MB of events.
        await add_events(connection, 1, 1)
        await receiver.until(lambda: len(receiver.attempts) >= 1)
        before = resident_bytes(process)
        await add_events(connection, 2_000, 5, "x" * 5_000)
        async with asyncio.timeout(60):
            while not await connection.fetchval("SELECT retry_at IS NOT NULL FROM plane_webhook"):
                await asyncio.sleep(0.05)
        assert resident_bytes(process) - before < 30_000_000
        receiver.respond = lambda _: web.Response()
        await connection.execute("UPDATE plane_webhook SET failures = 0, retry_at = NULL")
        await connection.execute("UPDATE plane_webhook_pending SET retry_at = now()")
        await receiver.until(lambda: len(set(receiver.ids())) == 10_001, 80)
        assert resident_bytes(process) - before < 30_000_000


def resident_bytes(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
