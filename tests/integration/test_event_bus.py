"""The event bus on a real database: fan-out, large payloads, lost connections, slow subscribers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.sql import END_LISTENERS, END_OTHER_SESSIONS
from plane.database import event_bus
from plane.database.event_bus import EventBus, Overflowed
from plane.database.migrate import migrate
from plane.database.pool import open_database
from plane.protocol.notifications import EVENTS_CHANNEL, METRICS_CHANNEL, EventKind

KIND = EventKind.BACKEND_STATE
EMIT = "SELECT plane_emit('backend_state', $1, $2)"


@asynccontextmanager
async def running_bus(
    url: str, *, max_queued: int = 1_000, max_inbox: int = 1_000
) -> AsyncIterator[tuple[EventBus, asyncpg.Connection[Any]]]:
    await migrate(url)
    connection = await asyncpg.connect(url)
    async with open_database(url) as db:
        bus = EventBus(db, max_queued=max_queued, max_inbox=max_inbox)
        task = asyncio.create_task(bus.run())
        try:
            async with asyncio.timeout(10):
                await bus.listening.wait()
            yield bus, connection
        finally:
            task.cancel()
            await asyncio.wait([task])
            await connection.close()


async def next_payload(subscription: event_bus.Subscription) -> Any:
    async with asyncio.timeout(10):
        return (await subscription.next()).payload


async def test_events_are_distributed_by_key_and_by_kind(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with bus.subscribe(KIND, "a") as only_a, bus.subscribe(KIND) as every:
            for key in ("b", "a"):
                await sql.execute(EMIT, key, json.dumps({"of": key}))
            assert await next_payload(only_a) == {"of": "a"}
            assert [await next_payload(every) for _ in range(2)] == [{"of": "b"}, {"of": "a"}]


async def test_payloads_of_any_size_arrive_in_order(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with bus.subscribe(KIND, "a") as events:
            sizes = [10, 7_000, 8_000, 1_000_000, 10]
            for size in sizes:
                await sql.execute(EMIT, "a", json.dumps({"text": "x" * size}))
            assert [len((await next_payload(events))["text"]) for _ in sizes] == sizes


async def test_events_during_a_lost_connection_are_replayed_once(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with bus.subscribe(KIND, "a") as events:
            await sql.execute(EMIT, "a", '{"n": 0}')
            assert await next_payload(events) == {"n": 0}
            await sql.execute(END_OTHER_SESSIONS)
            # More than a page of them, all before the bus listens again (it waits a second).
            await sql.executemany(EMIT, [("a", json.dumps({"n": n})) for n in range(1, 251)])
            assert [(await next_payload(events))["n"] for _ in range(250)] == list(range(1, 251))
            await sql.execute(EMIT, "a", '{"n": "after"}')
            assert await next_payload(events) == {"n": "after"}


async def test_invalid_event_does_not_block_the_replay(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with bus.subscribe(KIND, "a") as events:
            await sql.execute(END_OTHER_SESSIONS)
            for payload in ('["an array"]', '"text"', "1", "null", '{"n": 1}'):
                await sql.execute(EMIT, "a", payload)
            assert await next_payload(events) == {"n": 1}
            # And so where it is heard at once.
            for payload in ('["an array"]', '"text"', "1", '{"n": 2}'):
                await sql.execute(EMIT, "a", payload)
            assert await next_payload(events) == {"n": 2}


async def test_events_beyond_the_inbox_are_read_again(postgres_url: str) -> None:
    async with running_bus(postgres_url, max_inbox=10) as (bus, sql):
        with bus.subscribe(KIND, "a") as events:
            await sql.execute(
                "SELECT plane_emit('backend_state', 'a', jsonb_build_object('n', n)) FROM generate_series(0, 99) AS n"
            )
            assert [(await next_payload(events))["n"] for _ in range(100)] == list(range(100))


async def test_late_commit_is_not_missed_by_a_replay(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        late = await asyncpg.connect(postgres_url)
        with bus.subscribe(KIND, "a") as events:
            transaction = late.transaction()
            await transaction.start()
            await late.execute(EMIT, "a", '{"n": "late"}')  # a lower id, but not committed
            await sql.execute(EMIT, "a", '{"n": "early"}')
            assert await next_payload(events) == {"n": "early"}
            await sql.execute(END_LISTENERS)
            await transaction.commit()
            assert await next_payload(events) == {"n": "late"}
        await late.close()


async def test_reused_ids_after_a_failover_are_new_events(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with bus.subscribe(KIND, "a") as events:
            for n in range(3):
                await sql.execute(EMIT, "a", json.dumps({"n": n}))
                assert await next_payload(events) == {"n": n}
            # As on a standby that had not heard of the last two when it took over.
            await sql.execute("DELETE FROM event WHERE id > 1")
            await sql.execute("SELECT setval('event_id_seq', 1)")
            await sql.execute(END_LISTENERS)
            await sql.execute(EMIT, "a", '{"n": "again"}')
            assert await next_payload(events) == {"n": "again"}


async def test_slow_subscriber_overflows_and_others_do_not(postgres_url: str) -> None:
    async with running_bus(postgres_url, max_queued=2) as (bus, sql):
        with bus.subscribe(KIND, "a") as slow, bus.subscribe(KIND, "a") as quick:
            for n in range(4):
                await sql.execute(EMIT, "a", json.dumps({"n": n}))
                assert await next_payload(quick) == {"n": n}
            with pytest.raises(Overflowed):
                await slow.next()


async def test_invalid_notifications_are_skipped_and_do_not_fill_the_log(postgres_url: str) -> None:
    async with running_bus(postgres_url) as (bus, sql):
        with capture_logs() as logs, bus.subscribe(KIND, "a") as events:
            for channel in (EVENTS_CHANNEL, METRICS_CHANNEL):
                # PostgreSQL tells equal ones of one transaction once.
                await sql.execute("SELECT pg_notify($1, 'nonsense ' || n) FROM generate_series(1, 100) AS n", channel)
            await sql.execute(EMIT, "a", '{"n": "after"}')
            assert await next_payload(events) == {"n": "after"}
        assert [entry["count"] for entry in logs if entry["event"] == "notification not decoded"] == [1]
