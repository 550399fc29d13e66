"""Deletes expired and old rows; called by `plane.controller.upkeep.cleaner`. The SQL is in ``cleanup.sql``."""

from __future__ import annotations

from dataclasses import dataclass

from plane.database.pool import Database
from plane.database.statements import statements

__all__ = ["DeletedRows", "delete_expired_tokens", "delete_old"]

# Tokens, events and fencing tokens are small and many; deleting more in one statement might exceed its timeout.
SMALL_ROWS_PER_STATEMENT = 5_000

_SQL = statements("cleanup")


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """Numbers of deleted rows."""

    backends: int
    events: int


async def delete_expired_tokens(db: Database) -> None:
    """Delete the connection tokens that have expired."""
    await _delete_all(db, "delete_expired_tokens", SMALL_ROWS_PER_STATEMENT)


async def delete_old(db: Database, min_age_days: int, batch_size: int) -> DeletedRows:
    """Delete terminated backends (``batch_size`` per transaction), events and fencing tokens of at least this age."""
    backends = await _delete_all(db, "delete_old_backends", batch_size, min_age_days)
    events = await _delete_all(db, "delete_old_events", SMALL_ROWS_PER_STATEMENT, min_age_days)
    await _delete_all(db, "delete_old_fencing_tokens", SMALL_ROWS_PER_STATEMENT, min_age_days)
    return DeletedRows(backends=backends, events=events)


async def _delete_all(db: Database, statement: str, batch_size: int, *args: int) -> int:
    """Run the statement, whose last argument is the batch size, until it deletes fewer rows than that."""
    total = 0
    while True:
        count = len(await db.fetch(_SQL[statement], *args, batch_size))
        total += count
        if count < batch_size:
            return total
