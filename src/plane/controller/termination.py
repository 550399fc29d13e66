"""Enqueues orders to terminate backends, for every part of a controller that ends them."""

from __future__ import annotations

from collections.abc import Iterable

from plane.database import actions
from plane.database.pool import Database, Transaction
from plane.protocol.backend_state import TerminationKind, TerminationReason
from plane.protocol.drone_messages import BackendAction, BackendOrder, TerminateOrder
from plane.protocol.names import Prefix
from plane.random_ids import random_name

__all__ = ["terminate_backends"]


async def terminate_backends(
    db: Database | Transaction, backends: Iterable[tuple[str, int]], kind: TerminationKind, reason: TerminationReason
) -> None:
    """Order the drones of ``backends`` (ids of backend and drone) to terminate them, in one statement.

    An order is stored until its drone has acknowledged it. Backends that were deleted concurrently are skipped.

    Raises:
        DatabaseUnavailable
    """
    order = BackendOrder(terminate=TerminateOrder(kind=kind, reason=reason))
    orders = [
        BackendAction(
            action_id=random_name(Prefix.BACKEND_ACTION), backend_id=backend_id, drone_id=drone_id, action=order
        )
        for backend_id, drone_id in backends
    ]
    if orders:
        await actions.enqueue(db, orders)
