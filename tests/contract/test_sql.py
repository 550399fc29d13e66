"""Every statement of the program is prepared against a migrated database: names, columns and types fit."""

from __future__ import annotations

import asyncpg
import pytest

from plane.database.migrate import migrate
from plane.database.statements import all_statements


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


@pytest.mark.parametrize("name", all_statements())
def test_every_statement_says_what_it_is_for(name: str) -> None:
    assert all_statements()[name].startswith("-- ")
