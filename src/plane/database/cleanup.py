"""Deletes from the database what nobody needs any more. Statements: ``cleanup.sql``.

Called by `plane.controller.upkeep.cleaner`. Rule: page 3, "Cleanup".
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.database.pool import Database
from plane.database.statements import statements

__all__ = ["Cleaned", "delete_expired_tokens", "delete_old"]

# Tokens, events and fencing tokens are small and many; a statement that deletes more might not end in time.
SMALL_ROWS_AT_ONCE = 5_000

_SQL = statements("cleanup")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How much was deleted."""

    backends: int
    events: int


async def delete_expired_tokens(db: Database) -> None:
    """Forget the connection tokens that have expired."""
    await _delete_all(db, "delete_expired_tokens", SMALL_ROWS_AT_ONCE)


async def delete_old(db: Database, min_age_days: int, batch_size: int) -> Cleaned:
    """Delete terminated backends (``batch_size`` in one transaction) and events older than so many days."""
    backends = await _delete_all(db, "delete_old_backends", batch_size, min_age_days)
    events = await _delete_all(db, "delete_old_events", SMALL_ROWS_AT_ONCE, min_age_days)
    await _delete_all(db, "delete_old_fencing_tokens", SMALL_ROWS_AT_ONCE, min_age_days)
    return Cleaned(backends=backends, events=events)


async def _delete_all(db: Database, statement: str, at_once: int, *args: int) -> int:
    """Run the statement, whose last argument is how many rows to delete at once, until none are left."""
    total = 0
    while True:
        count = len(await db.fetch(_SQL[statement], *args, at_once))
        total += count
        if count < at_once:
            return total
