"""Migrations of real databases: empty, of Plane 0.5.5, newer than the program, and by concurrent controllers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from plane.database.migrate import LAST_ORIGINAL_MIGRATION, migrate, migrations
from plane.protocol.errors import ConfigurationError

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "contract/golden/schema.json").read_text())["tables"]
# Tables in an order in which foreign keys find what they refer to.
ORDER = (
    "controller",
    "node",
    "drone",
    "backend",
    "backend_state",
    "backend_key",
    "backend_action",
    "token",
    "event",
    "acme_txt_entries",
    "_sqlx_migrations",
)


async def make_original_database(url: str, last_migration: int = LAST_ORIGINAL_MIGRATION) -> None:
    """The schema as recorded, written from the recording alone, with a little data."""
    connection = await asyncpg.connect(url)
    try:
        for table in ORDER:
            recorded = RECORDED[table]
            parts = []
            for column in recorded["columns"]:
                if (column["default"] or "").startswith("nextval"):
                    parts.append(f"{column['name']} serial")
                    continue
                parts.append(
                    f"{column['name']} {column['type']}"
                    + ("" if column["nullable"] else " NOT NULL")
                    + (f" DEFAULT {column['default']}" if column["default"] else "")
                )
            parts += [constraint["definition"] for constraint in recorded["constraints"]]
            await connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
            for index in recorded["indexes"]:
                unique = "UNIQUE " if index["name"] in ("idx_namespace_name", "idx_cluster_name") else ""
                if not index["name"].endswith("_pkey"):
                    await connection.execute(f"CREATE {unique}INDEX {index['name']} ON {index['on']}")
        await connection.execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)"
            " VALUES ($1, 'last', true, '', 1)",
            last_migration,
        )
        await connection.execute("INSERT INTO event (kind, data) VALUES ('node_connection', '{}')")
    finally:
        await connection.close()


async def fetch(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def test_second_migration_changes_nothing(postgres_url: str) -> None:
    assert await migrate(postgres_url) == migrations()
    assert await migrate(postgres_url) == []


async def test_database_of_plane_0_5_5_keeps_its_data_and_its_record(postgres_url: str) -> None:
    await make_original_database(postgres_url)
    record = await fetch(postgres_url, "SELECT * FROM _sqlx_migrations")
    await migrate(postgres_url)
    assert await fetch(postgres_url, "SELECT * FROM _sqlx_migrations") == record
    assert await fetch(postgres_url, "SELECT id, kind FROM event") == [(1, "node_connection")]
    assert await fetch(postgres_url, "SELECT version FROM plane_migration ORDER BY 1") == [
        (migration.version,) for migration in migrations()
    ]


async def test_database_older_than_plane_0_5_5_is_refused(postgres_url: str) -> None:
    await make_original_database(postgres_url, last_migration=20240625170232)
    with pytest.raises(ConfigurationError, match=r"older than 0\.5\.5"):
        await migrate(postgres_url)


async def test_concurrent_migrations_apply_once(postgres_url: str) -> None:
    applied = await asyncio.gather(*(migrate(postgres_url) for _ in range(4)))
    assert sorted(len(each) for each in applied) == [0, 0, 0, len(migrations())]


async def test_newer_database_is_refused(postgres_url: str) -> None:
    await migrate(postgres_url)
    await fetch(postgres_url, "INSERT INTO plane_migration (version, name, checksum) VALUES (9999, 'future', '')")
    with pytest.raises(ConfigurationError, match=r"migration 9999 \(future\).*newer Plane"):
        await migrate(postgres_url)


async def test_modified_migration_is_refused(postgres_url: str) -> None:
    await migrate(postgres_url)
    await fetch(postgres_url, "UPDATE plane_migration SET checksum = 'other' WHERE version = 2")
    with pytest.raises(ConfigurationError, match=r"applied with a different text"):
        await migrate(postgres_url)


async def test_missing_database_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot connect to the database of --db"):
        await migrate("postgresql://nobody@127.0.0.1:1/nothing")
