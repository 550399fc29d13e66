"""Orders to drones in the database, kept until acknowledged. Statements: ``actions.sql``."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import structlog

from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.drone_messages import BackendAction
from plane.protocol.errors import MessageError

__all__ = ["acknowledge", "order", "pending"]

PAGE = 50

log = structlog.get_logger("plane.database")

_SQL = statements("actions")
_BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


async def order(db: Database, action: BackendAction) -> None:
    """Store an action and tell the drone's controller."""
    await db.execute(
        _SQL["order_backend"],
        action.action_id,
        action.backend_id,
        action.drone_id,
        codec.encode(action).decode(),
    )


async def pending(db: Database, drone_id: int) -> AsyncIterator[BackendAction]:
    """All actions that the drone has not acknowledged, oldest first, read in pages; unknown ones are skipped."""
    after: tuple[datetime.datetime, str] = (_BEGINNING, "")
    while True:
        rows = await db.fetch(_SQL["pending_actions"], drone_id, *after, PAGE)
        for row in rows:
            try:
                yield codec.decode(row["action"], BackendAction)
            except MessageError as error:
                # Of a later version, say: the others must not wait for it.
                log.warning("pending action not understood", action=row["id"], error=str(error))
        if len(rows) < PAGE:
            return
        after = (rows[-1]["created_at"], rows[-1]["id"])


async def acknowledge(db: Database, action_id: str, drone_id: int) -> None:
    """The drone has applied the action."""
    await db.execute(_SQL["acknowledge_action"], action_id, drone_id)
