"""A statement that waits for a lock undoes nothing that one which began after it, and was first, has stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from harness.controllers import controller_api
from harness.fake_node import fake_drone
from harness.sql import WAITING_FOR_A_LOCK, sql
from plane.database import clock, keys, nodes
from plane.database.pool import Database, open_database
from plane.protocol.times import DroneTime

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@asynccontextmanager
async def two_keys(url: str) -> AsyncIterator[tuple[Database, asyncpg.Connection, list[str]]]:
    """Yield the database, a connection that holds locks, and two backends in the order in which rows are locked."""
    async with controller_api(url) as api, fake_drone(api.base):
        backends = sorted([(await api.connect(spawn_config=IMAGE))["backend_id"] for _ in range(2)])
    # The controller has stopped: nothing else writes.
    async with open_database(url) as db, sql(url) as connection:
        yield db, connection, backends


async def until_one_waits(db: Database) -> None:
    async with asyncio.timeout(10):
        while not (await db.fetch(WAITING_FOR_A_LOCK))[0][0]:
            await asyncio.sleep(0.02)


async def lease_end(db: Database, backend: str) -> datetime:
    (row,) = await db.fetch("SELECT expires_at FROM backend_key WHERE id = $1", backend)
    end: datetime = row[0]
    return end


async def test_a_renewal_that_waited_for_another_row_ends_no_lease_sooner(postgres_url: str) -> None:
    async with two_keys(postgres_url) as (db, connection, (locked, renewed)):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM backend_key WHERE id = $1 FOR UPDATE", locked)
        early = asyncio.create_task(keys.renew(db, [locked, renewed]))
        await until_one_waits(db)
        await keys.renew(db, [renewed])
        before = await lease_end(db, renewed)
        await transaction.rollback()
        assert await early == [True, True]
        assert await lease_end(db, renewed) >= before


async def test_a_shift_that_waited_for_a_table_ends_no_lease_sooner(postgres_url: str) -> None:
    async with two_keys(postgres_url) as (db, connection, (backend, _)):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE backend IN ROW EXCLUSIVE MODE")
        row = await clock.read(db, asyncio.get_running_loop().time)
        shift = asyncio.create_task(clock.shift(db, row, 10.0, measured=True))
        await until_one_waits(db)
        await keys.renew(db, [backend])
        before = await lease_end(db, backend)
        await transaction.rollback()
        assert await shift is not None
        assert await lease_end(db, backend) >= before


async def test_a_heartbeat_that_waited_while_its_drone_registered_again_is_ignored(postgres_url: str) -> None:
    async with two_keys(postgres_url) as (db, connection, _):
        (node,) = await connection.fetch(
            "SELECT node.id, cluster, last_connection_start_time AS started_at FROM node JOIN drone USING (id)"
        )
        former = nodes.DroneHeartbeat(nodes.Registration(*node), DroneTime(2_000_000_000_000))
        # Its own connection is the present one.
        await nodes.drone_heartbeats(db, [former])
        local_time = "SELECT last_local_time FROM drone"
        assert (await connection.fetchval(local_time)).year == 2033
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM drone FOR UPDATE")
        await connection.execute("UPDATE node SET last_connection_start_time = now() WHERE id = $1", node["id"])
        await connection.execute("UPDATE drone SET last_local_time = NULL")
        late = asyncio.create_task(nodes.drone_heartbeats(db, [former]))
        await until_one_waits(db)
        await transaction.commit()
        await late
        assert await connection.fetchval(local_time) is None


async def test_a_locked_row_keeps_no_other_key_from_being_renewed(postgres_url: str) -> None:
    """Somebody has left a transaction open, or a process of the server is stopped."""
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone, sql(postgres_url) as connection:
        locked, other = [(await api.connect(spawn_config=IMAGE))["backend_id"] for _ in range(2)]
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM backend_key WHERE id = $1 FOR UPDATE", locked)
        # The first one is executed at once; the other two together.
        for backend in ("none", locked, other):
            await drone.send("RenewKey", {"backend": backend, "local_time": 1})
        while (response := await drone.receive("RenewKeyResponse"))["backend"] == "none":
            assert response["deadlines"] is None
        assert response["backend"] == other
        assert response["deadlines"] is not None
        await transaction.rollback()


async def test_a_drone_whose_row_is_locked_keeps_its_connection(postgres_url: str) -> None:
    """Without one it could not renew its keys, and could not register again either."""
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone, sql(postgres_url) as connection:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM drone FOR UPDATE")
        await drone.beat()
        async with open_database(postgres_url) as db:
            await until_one_waits(db)
            async with asyncio.timeout(10):
                while (await db.fetch(WAITING_FOR_A_LOCK))[0][0]:
                    await asyncio.sleep(0.02)
        await drone.send("RenewKey", {"backend": backend, "local_time": 1})
        assert (await drone.receive("RenewKeyResponse"))["deadlines"] is not None
        await transaction.rollback()
