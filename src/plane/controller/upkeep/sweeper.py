"""Ends backends that nobody uses or whose lifetime is over: looks every few seconds, for all connected drones.

Decided by `plane.decisions.backends.idle_sweep`, from what the database's clock says.
"""

from __future__ import annotations

import asyncio

import structlog

from plane.controller.context import Context
from plane.controller.termination import order_termination
from plane.database import backends
from plane.database.pool import DatabaseUnavailable
from plane.decisions.backends.idle_sweep import sweep
from plane.protocol.backend_state import TerminationKind, TerminationReason
from plane.protocol.names import NodeKind

__all__ = ["sweep_for_ever"]

log = structlog.get_logger("plane.controller")


async def sweep_for_ever(context: Context) -> None:
    """Sweep the backends of this controller's drones until cancelled."""
    wait_s = 0.0
    while True:
        try:
            wait_s = await _sweep(context)
        except DatabaseUnavailable as error:
            log.warning("not swept; trying again", error=str(error))
        await asyncio.sleep(wait_s)


async def _sweep(context: Context) -> float:
    """Returns the seconds until the next look."""
    drones = context.sockets.nodes_of(NodeKind.DRONE)
    due, wait_s = sweep(await backends.backends_to_sweep(context.db, drones) if drones else [])
    for backend in due:
        log.info("sweeping: idle, or past its lifetime", backend=backend.backend_id)
        kind, reason = TerminationKind.SOFT, TerminationReason.SWEPT
        await order_termination(context.db, backend.backend_id, backend.drone_id, kind, reason)
    return wait_s
