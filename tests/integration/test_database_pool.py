"""Connections that are kept between statements: those that the server closes, that fail, and that others wait for."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from plane.database.pool import Database, DatabaseUnavailable, Unstorable, connect, open_database


async def _pid(db: Database) -> int:
    (row,) = await db.fetch("SELECT pg_backend_pid() AS pid")
    pid: int = row["pid"]
    return pid


async def _until_gone(url: str, pid: int) -> None:
    watcher = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(10):
            while await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
                await asyncio.sleep(0.01)
    finally:
        await watcher.close()


async def test_statements_one_after_another_use_one_connection(postgres_url: str) -> None:
    async with open_database(postgres_url) as db:
        assert len({await _pid(db) for _ in range(20)}) == 1


async def test_connection_that_the_server_has_closed_is_not_used_again(postgres_url: str) -> None:
    async with open_database(postgres_url) as db:
        for _ in range(3):
            pid = await _pid(db)
            killer = await asyncpg.connect(postgres_url)
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await killer.close()
            await _until_gone(postgres_url, pid)
            assert await _pid(db) != pid


async def test_statement_that_fails_does_not_spoil_its_connection(postgres_url: str) -> None:
    async with open_database(postgres_url, pool_size=1) as db:
        for _ in range(3):
            with pytest.raises(Unstorable):
                await db.fetch("SELECT $1::text", "\x00")
            assert await _pid(db)


async def test_connection_of_a_cancelled_statement_is_used_again_only_after_its_end(postgres_url: str) -> None:
    async with open_database(postgres_url, pool_size=1) as db:
        slow = asyncio.create_task(db.fetch("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await db.fetch("SELECT 1 AS one")


async def test_transaction_that_fails_leaves_no_open_one_behind(postgres_url: str) -> None:
    async with open_database(postgres_url, pool_size=1) as db:
        with pytest.raises(ZeroDivisionError):
            await _fail_in_a_transaction(db)
        (row,) = await db.fetch("SELECT pg_current_xact_id_if_assigned() IS NULL AS none_is_open")
        assert row["none_is_open"]


async def _fail_in_a_transaction(db: Database) -> None:
    async with db.transaction() as transaction:
        await transaction.fetch("SELECT pg_current_xact_id()")
        raise ZeroDivisionError


async def test_every_statement_gets_a_connection_when_there_are_fewer(postgres_url: str) -> None:
    async with open_database(postgres_url, pool_size=2) as db:
        pids = await asyncio.gather(*(_pid(db) for _ in range(200)))
        assert len(set(pids)) <= 2


async def test_waiting_for_a_connection_has_a_limit(postgres_url: str) -> None:
    async with open_database(postgres_url, pool_size=1) as db, db.transaction():
        with pytest.raises(DatabaseUnavailable):
            await db.fetch("SELECT 1")


async def test_few_connections_are_kept_after_a_burst_and_none_after_the_end(postgres_url: str) -> None:
    async with open_database(postgres_url) as db:
        await asyncio.gather(*(db.fetch("SELECT pg_sleep(0.05)") for _ in range(16)))
        pid = await _pid(db)
    await _until_gone(postgres_url, pid)


async def test_a_connection_that_listens_outlives_the_idle_timeout_of_the_database(postgres_url: str) -> None:
    first = await asyncpg.connect(postgres_url)
    name = await first.fetchval("SELECT current_database()")
    await first.execute(f'ALTER DATABASE "{name}" SET idle_session_timeout = 200')
    await first.close()
    dedicated = await connect(postgres_url)
    try:
        await asyncio.sleep(0.6)
        assert await dedicated.fetchval("SELECT 1") == 1
    finally:
        await dedicated.close()
