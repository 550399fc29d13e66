"""Every statement of the program is prepared against a migrated database: names, columns and types fit."""

from __future__ import annotations

import re

import asyncpg
import pytest

from plane.database.migrate import migrate
from plane.database.pool import connect
from plane.database.statements import all_statements

# What is done once after a step of the clock or a failover.
MAY_READ_WHOLE = {
    "clock.record_failover",
    "clock.shift_lifetimes",
    "clock.shift_times",
}
READS_WHOLE = re.compile(r"Seq Scan on (?:backend|backend_state|backend_key|backend_action|token|event|plane_event)\b")


async def test_every_statement_fits_the_schema(postgres_url: str) -> None:
    await migrate(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    try:
        refused = []
        for name, text in all_statements().items():
            try:
                await connection.prepare(text)
            except asyncpg.PostgresError as error:
                refused.append(f"{name}: {error}")
    finally:
        await connection.close()
    assert refused == []


async def test_plans_that_are_kept_read_no_growing_table_whole(postgres_url: str) -> None:
    """They are made when the controller starts, perhaps on an empty database, and serve until it ends."""
    await migrate(postgres_url)
    connection = await connect(postgres_url)
    try:
        whole = []
        for name, text in all_statements().items():
            if name in MAY_READ_WHOLE:
                continue
            nothing = ", ".join(["NULL"] * len((await connection.prepare(text)).get_parameters()))
            await connection.execute(f"PREPARE kept AS {text}")
            plan = await connection.fetch(f"EXPLAIN EXECUTE kept{f' ({nothing})' if nothing else ''}")
            await connection.execute("DEALLOCATE kept")
            whole += [f"{name}: {line.strip()}" for (line,) in plan if READS_WHOLE.search(line)]
    finally:
        await connection.close()
    assert whole == []


@pytest.mark.parametrize("name", all_statements())
def test_every_statement_says_what_it_is_for(name: str) -> None:
    assert all_statements()[name].startswith("-- ")
