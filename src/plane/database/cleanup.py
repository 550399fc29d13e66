"""Deletes from the database what nobody needs any more. Statements: ``cleanup.sql``.

Called by `plane.controller.cleaner`. Rule: page 3, "Cleanup".
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.database.pool import Database
from plane.database.statements import statements

__all__ = ["Cleaned", "delete_expired_tokens", "delete_old"]

# Events are small and many.
EVENTS_AT_ONCE = 5_000

_SQL = statements("cleanup")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How much was deleted."""

    backends: int
    events: int


async def delete_expired_tokens(db: Database) -> None:
    """Forget the connection tokens that have expired."""
    await db.execute(_SQL["delete_expired_tokens"])


async def delete_old(db: Database, min_age_days: int, batch_size: int) -> Cleaned:
    """Delete terminated backends (``batch_size`` in one transaction) and events older than so many days."""
    backends = await _delete_all(db, "delete_old_backends", min_age_days, batch_size)
    events = await _delete_all(db, "delete_old_events", min_age_days, EVENTS_AT_ONCE)
    await db.execute(_SQL["delete_old_fencing_tokens"], min_age_days)
    return Cleaned(backends=backends, events=events)


async def _delete_all(db: Database, statement: str, min_age_days: int, batch_size: int) -> int:
    total = 0
    while True:
        count = len(await db.fetch(_SQL[statement], min_age_days, batch_size))
        total += count
        if count < batch_size:
            return total
