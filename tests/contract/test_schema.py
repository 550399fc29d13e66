"""Our tables are the original's, column for column, as recorded in golden/schema.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from plane.database.migrate import migrate

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "golden/schema.json").read_text())["tables"]
TABLES = [name for name in RECORDED if name != "_sqlx_migrations"]

COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable,
    pg_get_expr(d.adbin, d.adrelid) AS default
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
CONSTRAINTS = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('p', 'f')
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = $1"


@pytest.mark.parametrize("table", TABLES)
async def test_a_table_is_as_recorded(table: str, postgres_url: str) -> None:
    await migrate(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    try:
        columns = [dict(row) for row in await connection.fetch(COLUMNS, table)]
        constraints = {row[0] for row in await connection.fetch(CONSTRAINTS, table)}
        indexes = {row["indexname"]: row["indexdef"] for row in await connection.fetch(INDEXES, table)}
    finally:
        await connection.close()
    recorded = RECORDED[table]
    found = {column["name"]: column for column in columns}
    original = {column["name"]: column for column in recorded["columns"]}
    ours = {name: found.pop(name) for name in found.keys() - original.keys()}
    assert found == original
    # An original controller inserts rows without our columns.
    assert all(name.startswith("plane_") and (column["nullable"] or column["default"]) for name, column in ours.items())
    assert constraints == {constraint["definition"] for constraint in recorded["constraints"]}
    for index in recorded["indexes"]:
        assert indexes[index["name"]].replace("public.", "").endswith(f" ON {index['on']}")
