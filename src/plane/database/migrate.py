"""Migrates a database to this program's schema: an empty one, one of Plane 0.5.5, or one of an older version of ours.

Applied migrations are recorded in our own table, ``plane_migration``, never in ``_sqlx_migrations``. All missing
migrations are applied in one transaction under an advisory lock, so any number of controllers may start at once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import asyncpg
import structlog

from plane.database.pool import CANNOT_CONNECT, cannot_connect, connect
from plane.protocol.errors import ConfigurationError

__all__ = ["Migration", "migrate", "migrations"]

# An arbitrary number that no other program on the database uses.
ADVISORY_LOCK = 0x504C_414E_45
LOCK_TIMEOUT_MS = 60_000
OLDEST_POSTGRESQL = 140000
# The last migration of 0.5.5; a database with fewer migrations is of an older release.
LAST_ORIGINAL_MIGRATION = 20240709213841

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")

log = structlog.get_logger("plane.database")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return all migrations in order."""
    found = (
        Migration(int(match["version"]), match["name"], file.read_text())
        for file in resources.files(__package__).joinpath("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    )
    return sorted(found, key=lambda migration: migration.version)


async def migrate(url: str) -> list[Migration]:
    """Apply the missing migrations and return them.

    Raises:
        ConfigurationError: the database cannot be reached, is too old, or is newer than this program.
    """
    try:
        connection = await connect(url)
    except CANNOT_CONNECT as error:
        raise cannot_connect(error) from error
    try:
        async with connection.transaction():
            # Indexing a large table may take long, so statements have no timeout. The other limits end a program that
            # hangs.
            await connection.execute(
                f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = 0;"
                f" SET LOCAL idle_in_transaction_session_timeout = {LOCK_TIMEOUT_MS}"
            )
            await connection.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK)
            return await _apply_missing(connection)
    except asyncpg.LockNotAvailableError:
        raise ConfigurationError(
            "another program has been migrating the database for a minute; start this one again when it has finished"
        ) from None
    finally:
        await connection.close()


async def _apply_missing(connection: asyncpg.Connection[asyncpg.Record]) -> list[Migration]:
    await _refuse_unsuitable(connection)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS plane_migration ("
        " version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = {row["version"]: row for row in await connection.fetch("SELECT * FROM plane_migration")}
    known = migrations()
    if newer := sorted(set(applied) - {migration.version for migration in known}):
        raise ConfigurationError(
            f"the database has migration {newer[-1]} ({applied[newer[-1]]['name']}), which this program does not "
            "know: it was migrated by a newer Plane. Upgrade this one"
        )
    missing = []
    for migration in known:
        if migration.version not in applied:
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO plane_migration (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
            missing.append(migration)
            log.info("database migrated", version=migration.version, name=migration.name)
        elif applied[migration.version]["checksum"] != migration.checksum:
            raise ConfigurationError(
                f"migration {migration.version} ({migration.name}) was applied with a different text than this "
                "program has: the database belongs to a modified build of Plane; use that build, or another database"
            )
    return missing


async def _refuse_unsuitable(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    version = int(await connection.fetchval("SHOW server_version_num"))
    if version < OLDEST_POSTGRESQL:
        raise ConfigurationError(f"PostgreSQL {version // 10000} is too old; Plane needs 14 or newer")
    if await connection.fetchval("SELECT to_regclass('_sqlx_migrations') IS NOT NULL"):
        last = await connection.fetchval("SELECT max(version) FROM _sqlx_migrations WHERE success")
        if last is None or last < LAST_ORIGINAL_MIGRATION:
            raise ConfigurationError(
                "the database was made by a Plane older than 0.5.5; let Plane 0.5.5 migrate it first"
            )
