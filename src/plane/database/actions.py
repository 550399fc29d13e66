"""Orders to drones in the database, kept until acknowledged. Statements: ``actions.sql``."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.drone_messages import BackendAction
from plane.protocol.errors import MessageError

__all__ = ["Acknowledgement", "acknowledge", "have_pending", "order", "pending"]

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


async def have_pending(db: Database, drone_ids: Sequence[int]) -> list[bool]:
    """Whether a drone has not acknowledged everything."""
    found = {row["drone_id"] for row in await db.fetch(_SQL["drones_with_pending_actions"], drone_ids)}
    return [drone_id in found for drone_id in drone_ids]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A drone has applied an action."""

    action_id: str
    drone_id: int


async def acknowledge(db: Database, acknowledgements: Sequence[Acknowledgement]) -> list[None]:
    """Drones have applied actions."""
    await db.fetch(
        _SQL["acknowledge_actions"],
        [each.action_id for each in acknowledgements],
        [each.drone_id for each in acknowledgements],
    )
    return [None] * len(acknowledgements)
