"""Orders to drones, stored until they are acknowledged. The SQL is in ``actions.sql``."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.drone_messages import BackendAction
from plane.protocol.errors import MessageError

__all__ = ["Acknowledgement", "acknowledge", "enqueue", "have_pending", "pending"]

PAGE = 50

log = structlog.get_logger("plane.database")

_SQL = statements("actions")
_BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


async def enqueue(db: Database | Transaction, orders: Sequence[BackendAction]) -> None:
    """Store actions and notify the drones' controllers. Actions of backends that no longer exist are skipped."""
    await db.fetch(
        _SQL["enqueue_actions"],
        [order.action_id for order in orders],
        [order.backend_id for order in orders],
        [order.drone_id for order in orders],
        [codec.encode(order).decode() for order in orders],
    )


async def pending(db: Database, drone_id: int) -> AsyncIterator[BackendAction]:
    """Yield the actions that the drone has not acknowledged, oldest first, page by page; unknown ones are skipped."""
    after: tuple[datetime.datetime, str] = (_BEGINNING, "")
    while True:
        rows = await db.fetch(_SQL["pending_actions"], drone_id, *after, PAGE)
        for row in rows:
            try:
                yield codec.decode(row["action"], BackendAction)
            except MessageError as error:
                # It may be of a later version; the others must not wait for it.
                log.warning("pending action not decoded", action=row["id"], error=str(error))
        if len(rows) < PAGE:
            return
        after = (rows[-1]["created_at"], rows[-1]["id"])


async def have_pending(db: Database, drone_ids: Sequence[int]) -> list[bool]:
    """Return, for each drone, whether it has unacknowledged actions."""
    found = {row["drone_id"] for row in await db.fetch(_SQL["drones_with_pending_actions"], drone_ids)}
    return [drone_id in found for drone_id in drone_ids]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A drone has applied an action."""

    action_id: str
    drone_id: int


async def acknowledge(db: Database, acknowledgements: Sequence[Acknowledgement]) -> list[None]:
    """Mark actions as applied by their drones."""
    await db.fetch(
        _SQL["acknowledge_actions"],
        [each.action_id for each in acknowledgements],
        [each.drone_id for each in acknowledgements],
    )
    return [None] * len(acknowledgements)
