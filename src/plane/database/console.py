"""Queries of the console's pages. The SQL is in ``console.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from plane.database.inspection import SEARCHED_TERMINATED
from plane.database.pool import Database
from plane.database.statements import statements
from plane.decisions.console.backend_query import PAGE_ROWS, BackendQuery
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus

__all__ = [
    "BackendRow",
    "PendingActions",
    "StatusCount",
    "TokenUser",
    "current_states",
    "page_of_backends",
    "pending_actions",
    "session_secret",
    "status_counts",
    "users_of_backend",
]

# Beyond that a person looks for a name instead of reading a list.
MAX_USERS = 100

_SQL = statements("console")


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The number of backends of a cluster in one status."""

    cluster: str
    status: BackendStatus
    number: int


@dataclass(frozen=True, slots=True)
class PendingActions:
    """Orders that no drone has acknowledged; ``oldest_s`` is None if there are none."""

    number: int
    oldest_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRow:
    """A row of the list. ``state`` is as stored; ``since_us`` in microseconds since 1970."""

    id: str
    status: BackendStatus
    since_us: int
    state: dict[str, Any]
    cluster: str = ""
    drone: str = ""
    pool: str = ""
    key_name: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class TokenUser:
    """A user who has valid tokens of a backend."""

    name: str
    tokens: int


async def session_secret(db: Database) -> bytes:
    """Return the secret of the console's sessions."""
    row = await db.fetchrow(_SQL["session_secret"])
    assert row is not None, "the migration has inserted the row"
    secret: str = row["session_secret"]
    return secret.encode()


async def status_counts(db: Database) -> list[StatusCount]:
    """Return the number of backends by cluster and status, except terminated ones."""
    rows = await db.fetch(_SQL["status_counts"])
    return [StatusCount(row["cluster"], BackendStatus(row["status"]), row["number"]) for row in rows]


async def pending_actions(db: Database) -> PendingActions:
    """Return the orders that no drone has acknowledged."""
    row = await db.fetchrow(_SQL["pending_actions"])
    assert row is not None
    return PendingActions(row["number"], row["oldest_s"])


async def page_of_backends(db: Database, query: BackendQuery) -> tuple[list[BackendRow], bool]:
    """Return the rows of a page, the latest change first, and whether there is a next page."""
    since_us, backend_id = query.after or (None, None)
    rows = await db.fetch(
        _SQL["page_of_backends"],
        query.status,
        query.cluster,
        query.drone,
        query.search,
        since_us,
        backend_id,
        SEARCHED_TERMINATED if query.is_filtered else PAGE_ROWS + 1,
        PAGE_ROWS + 1,
    )
    return [_row(row) for row in rows[:PAGE_ROWS]], len(rows) > PAGE_ROWS


async def current_states(db: Database, ids: Sequence[str]) -> list[BackendRow]:
    """Return the current states of backends; deleted ones are missing."""
    return [_row(row) for row in await db.fetch(_SQL["states_of_backends"], ids)]


async def users_of_backend(db: Database, backend_id: str) -> list[TokenUser]:
    """Return users who have valid tokens of a backend."""
    rows = await db.fetch(_SQL["users_of_backend"], backend_id, MAX_USERS)
    return [TokenUser(row["username"], row["tokens"]) for row in rows]


def _row(row: asyncpg.Record) -> BackendRow:
    values = {name: row[name] for name in row.keys() if name not in ("state", "status")}  # noqa: SIM118 - a record's iteration yields values
    return BackendRow(status=BackendStatus(row["status"]), state=codec.decode(row["state"], dict), **values)
