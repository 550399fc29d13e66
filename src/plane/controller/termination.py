"""Orders to end a backend, for whatever part of a controller decides that it ends."""

from __future__ import annotations

from contextlib import suppress

from plane.database import actions
from plane.database.pool import Database, RowGone
from plane.protocol.backend_state import TerminationKind, TerminationReason
from plane.protocol.drone_messages import BackendAction, BackendOrder, TerminateOrder
from plane.protocol.names import Prefix
from plane.random_ids import random_name

__all__ = ["order_termination"]


async def order_termination(
    db: Database, backend_id: str, drone_id: int, kind: TerminationKind, reason: TerminationReason
) -> None:
    """Tell the drone to end the backend; the order is kept until the drone has acknowledged it.

    Nothing is to be done about one that has ended and was deleted meanwhile.
    """
    action = BackendAction(
        action_id=random_name(Prefix.BACKEND_ACTION),
        backend_id=backend_id,
        drone_id=drone_id,
        action=BackendOrder(terminate=TerminateOrder(kind=kind, reason=reason)),
    )
    with suppress(RowGone):
        await actions.order(db, action)
