"""The event feed in PostgreSQL: written with the change, whoever makes it; read without gaps while commits overlap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from structlog.testing import capture_logs

from plane.controller.feed_tail import FeedTail, FeedWake
from plane.database import event_feed
from plane.database.event_feed import EventFilter, read_after, read_before
from plane.database.migrate import migrate
from plane.database.pool import Database, open_database
from plane.protocol.event_feed import EventType, FeedEvent

ALL = EventFilter()


@asynccontextmanager
async def feed(url: str) -> AsyncIterator[Database]:
    """A migrated database with a drone."""
    await migrate(url)
    async with open_database(url, pool_size=4) as db:
        yield db


async def events_of(db: Database, wanted: EventFilter = ALL, after: int = 0) -> list[FeedEvent]:
    window = await event_feed.feed_window(db)
    return (await read_after(db, after, window.horizon, wanted, 1000)).events


async def original_drone(connection: asyncpg.Connection) -> int:
    """A drone as an original controller stores it."""
    await connection.execute(
        "INSERT INTO controller (id, last_heartbeat, is_online, plane_version, plane_hash)"
        " VALUES ('co-o', now(), true, '0.5.5', '') ON CONFLICT DO NOTHING"
    )
    node: int = await connection.fetchval(
        "INSERT INTO node (kind, cluster, name, plane_version, plane_hash, controller, ip, last_connection_start_time)"
        " VALUES ('Drone', 'c', 'dr-o', '0.5.5', '', 'co-o', '10.0.0.7', now()) ON CONFLICT (cluster, name) DO UPDATE"
        " SET last_connection_start_time = now() RETURNING id"
    )
    await connection.execute("INSERT INTO drone (id, ready) VALUES ($1, true) ON CONFLICT DO NOTHING", node)
    return node


async def original_backend(
    connection: asyncpg.Connection, backend: str, drone: int, key: str, namespace: str = "ns"
) -> None:
    """A backend as an original controller stores it: its key, its state, its action, one statement each."""
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO backend (id, cluster, last_status, last_status_time, last_status_number, drone_id,"
            " last_keepalive, state) VALUES ($1, 'c', 'scheduled', now(), 10, $2, now(), '{}')",
            backend,
            drone,
        )
        await connection.execute(
            "INSERT INTO backend_key (id, key_name, namespace, tag, expires_at, fencing_token)"
            " VALUES ($1, $2, $3, '', now() + interval '1 hour', 1)",
            backend,
            key,
            namespace,
        )
        await original_state(connection, backend, '{"status": "scheduled"}')
        await connection.execute(
            "INSERT INTO backend_action (id, backend_id, drone_id, action) VALUES ($1, $2, $3, $4)",
            f"ac-{backend}",
            backend,
            drone,
            f'{{"action": {{"Spawn": {{"key": {{"key": {{"name": "{key}", "namespace": "ns", "tag": ""}}}}}}}}}}',
        )


async def original_state(connection: asyncpg.Connection, backend: str, state: str) -> None:
    await connection.execute("INSERT INTO backend_state (backend_id, state) VALUES ($1, $2)", backend, state)


async def test_changes_of_an_original_controller_are_in_the_feed(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        connection = await asyncpg.connect(postgres_url)
        drone = await original_drone(connection)
        await original_drone(connection)
        await original_backend(connection, "b1", drone, "k1")
        await original_state(connection, "b1", '{"status": "loading"}')
        await original_state(connection, "b1", '{"status": "ready", "address": "10.0.0.7:80"}')
        ended = (
            '{"status": "terminated", "last_status": "ready", "reason": "external", "termination": "hard",'
            ' "exit_code": 137, "message": "it was killed; its last output:\\nsecret"}'
        )
        async with connection.transaction():
            await connection.execute("DELETE FROM backend_key WHERE id = 'b1'")
            await original_state(connection, "b1", ended)
        await connection.execute("UPDATE drone SET draining = true")
        await connection.execute("UPDATE drone SET draining = true, last_heartbeat = now()")
        await connection.execute("UPDATE drone SET draining = false")
        await connection.close()
        found = await events_of(db)
    assert [(each.type, each.backend, each.namespace, each.key, each.cluster, each.drone) for each in found] == [
        ("drone.connected", None, None, None, "c", "dr-o"),
        ("drone.connected", None, None, None, "c", "dr-o"),
        ("backend.scheduled", "b1", "ns", "k1", "c", "dr-o"),
        ("backend.ready", "b1", "ns", "k1", "c", "dr-o"),
        ("backend.terminated", "b1", "ns", "k1", "c", "dr-o"),
        ("drone.draining", None, None, None, "c", "dr-o"),
        ("drone.undrained", None, None, None, "c", "dr-o"),
    ]
    assert found[0].data == {"version": "0.5.5", "address": "10.0.0.7"}
    assert found[4].data == {
        "termination_reason": "external",
        "termination_kind": "hard",
        "exit_code": 137,
        "message": "it was killed",
    }


async def test_a_change_that_is_rolled_back_is_no_event(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        connection = await asyncpg.connect(postgres_url)
        drone = await original_drone(connection)
        before = await events_of(db)
        transaction = connection.transaction()
        await transaction.start()
        await original_backend(connection, "b1", drone, "k1")
        await transaction.rollback()
        await connection.close()
        assert await events_of(db) == before


async def test_an_open_transaction_holds_the_horizon_back_until_it_ends(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        slow, quick = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
        drone = await original_drone(quick)
        await original_backend(quick, "b0", drone, "k0")
        settled = (await event_feed.feed_window(db)).horizon
        transaction = slow.transaction()
        await transaction.start()
        await original_backend(slow, "b1", drone, "k1")
        await original_backend(quick, "b2", drone, "k2")
        # b2 is committed and has the higher id: whoever read it now would never see b1.
        assert (await event_feed.feed_window(db)).horizon == settled
        await transaction.commit()
        found = await events_of(db, after=settled)
        assert [each.backend for each in found] == ["b1", "b2"]
        await slow.close()
        await quick.close()


async def test_whoever_writes_an_event_holds_the_horizon_back(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        writer = await asyncpg.connect(postgres_url)
        await writer.execute("INSERT INTO plane_event (type) VALUES ('drone.lost')")
        settled = (await event_feed.feed_window(db)).horizon
        for statement in (
            "INSERT INTO plane_event (type) SELECT 'drone.lost' FROM generate_series(1, 10)",
            "WITH new AS (INSERT INTO plane_event (type) VALUES ('drone.lost') RETURNING id) SELECT id FROM new",
            "SELECT plane_add_event('drone.lost', NULL, NULL, NULL)",
        ):
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute(statement)
            assert (await event_feed.feed_window(db)).horizon == settled, statement
            await transaction.commit()
            settled = (await event_feed.feed_window(db)).horizon
            assert settled == await writer.fetchval("SELECT max(id) FROM plane_event")
        await writer.close()


async def test_a_transaction_of_others_holds_nothing_back(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        other, quick = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("CREATE TABLE others (a int)")
        await other.execute("SELECT pg_advisory_xact_lock(1)")
        drone = await original_drone(quick)
        await original_backend(quick, "b1", drone, "k1")
        assert [each.type for each in await events_of(db)] == ["drone.connected", "backend.scheduled"]
        await other.close()
        await quick.close()


async def test_a_reader_misses_nothing_while_many_transactions_overlap(postgres_url: str) -> None:
    chance = random.Random(1)
    async with feed(postgres_url) as db:
        first = await asyncpg.connect(postgres_url)
        drone = await original_drone(first)
        await first.close()
        running = 8

        async def write(writer: int) -> None:
            nonlocal running
            connection = await asyncpg.connect(postgres_url)
            for number in range(25):
                transaction = connection.transaction()
                await transaction.start()
                await original_backend(connection, f"b{writer}-{number}", drone, f"k{writer}-{number}")
                await asyncio.sleep(chance.random() * 0.02)
                await original_state(connection, f"b{writer}-{number}", '{"status": "ready", "address": "a:1"}')
                await (transaction.rollback() if number % 5 == 4 else transaction.commit())
            await connection.close()
            running -= 1

        async def read() -> list[FeedEvent]:
            seen: list[FeedEvent] = []
            cursor = 0
            while True:
                ended = running == 0
                window = await event_feed.feed_window(db)
                page = await read_after(db, cursor, window.horizon, ALL, 7)
                seen += page.events
                cursor = page.reached
                if ended and page.at_end:
                    return seen

        seen, *_ = await asyncio.gather(read(), *(write(writer) for writer in range(8)))
        assert seen == await events_of(db)
        ids = [each.id for each in seen]
        assert ids == sorted(set(ids))
        written = [f"b{writer}-{number}" for writer in range(8) for number in range(25) if number % 5 != 4]
        per_backend: dict[str | None, list[str]] = {}
        for each in seen[1:]:
            per_backend.setdefault(each.backend, []).append(each.type)
        assert per_backend == {backend: ["backend.scheduled", "backend.ready"] for backend in written}


async def test_pages_by_type_and_key_in_both_directions(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        connection = await asyncpg.connect(postgres_url)
        drone = await original_drone(connection)
        for number in range(6):
            await original_backend(connection, f"b{number}", drone, f"k{number % 2}", f"n{number}")
        async with db.transaction() as transaction:
            await event_feed.record_call(transaction, EventType.ADMIN_DRAIN, {"caller": "ops"}, drone="dr-o")
        await connection.close()
        horizon = (await event_feed.feed_window(db)).horizon
        odd = EventFilter(key="k1")
        page = await read_after(db, 0, horizon, odd, 2)
        assert [each.backend for each in page.events] == ["b1", "b3"]
        assert not page.at_end
        page = await read_after(db, page.reached, horizon, odd, 2)
        assert ([each.backend for each in page.events], page.reached, page.at_end) == (["b5"], horizon, True)
        page = await read_before(db, horizon, 0, odd, 2)
        assert [each.backend for each in page.events] == ["b5", "b3"]
        page = await read_before(db, page.reached - 1, 0, odd, 2)
        assert ([each.backend for each in page.events], page.at_end) == (["b1"], True)
        calls = EventFilter(types=frozenset({EventType.ADMIN_DRAIN}))
        assert [each.data for each in await events_of(db, calls)] == [{"caller": "ops"}]
        none = EventFilter(types=frozenset({EventType.DRONE_LOST}))
        assert await read_after(db, 0, horizon, none, 5) == ([], horizon, True)


async def test_pruning_deletes_old_events_and_remembers_where_the_feed_begins(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        connection = await asyncpg.connect(postgres_url)
        drone = await original_drone(connection)
        for number in range(4):
            await original_backend(connection, f"b{number}", drone, "k" + str(number))
        await connection.execute(
            "UPDATE plane_event SET created_at = now() - interval '3 days' WHERE backend_id IN ('b0', 'b1')"
            " OR type = 'drone.connected'"
        )
        await event_feed.prune(db, 4)
        assert (await event_feed.feed_window(db)).pruned == 0
        # Another controller that prunes is not waited for.
        async with connection.transaction():
            await connection.execute("SELECT FROM plane_event_pruned FOR UPDATE")
            await event_feed.prune(db, 2)
        assert (await event_feed.feed_window(db)).pruned == 0
        await event_feed.prune(db, 2)
        assert [each.backend for each in await events_of(db)] == ["b2", "b3"]
        window = await event_feed.feed_window(db)
        assert window.pruned == (await events_of(db))[0].id - 1
        await connection.close()


async def test_a_transaction_that_stays_open_is_named_in_the_log(postgres_url: str) -> None:
    async with feed(postgres_url) as db:
        forgotten = await asyncpg.connect(postgres_url, server_settings={"application_name": "forgotten"})
        transaction = forgotten.transaction()
        await transaction.start()
        await forgotten.execute("INSERT INTO plane_event (type) VALUES ('drone.lost')")
        tail = FeedTail(db, stuck_after_s=0.0)
        with capture_logs() as logs:
            async with tail.followed_by(FeedWake()), asyncio.timeout(10):
                task = asyncio.create_task(tail.run())
                while not logs:
                    await asyncio.sleep(0.02)
                task.cancel()
        assert logs[0]["event"] == "event feed is held back by an open transaction"
        assert logs[0]["program"] == "forgotten"
        assert logs[0]["pid"] == await forgotten.fetchval("SELECT pg_backend_pid()")
        await forgotten.close()
