"""Ends backends that nobody uses or whose lifetime is over: looks every few seconds, per connected drone.

Decided by `plane.decisions.idle_sweep`, from what the database's clock says.
"""

from __future__ import annotations

import asyncio

import structlog

from plane.controller.backend_api import order_termination
from plane.controller.context import Context
from plane.database import backends
from plane.decisions.idle_sweep import sweep
from plane.protocol.backend_state import TerminationKind, TerminationReason

__all__ = ["sweep_for_ever"]

log = structlog.get_logger("plane.controller")


async def sweep_for_ever(context: Context, drone_id: int) -> None:
    """Sweep the drone's backends until cancelled."""
    while True:
        due, wait_s = sweep(await backends.backends_to_sweep(context.db, drone_id))
        for backend_id in due:
            log.info("sweeping: idle, or past its lifetime", backend=backend_id)
            await order_termination(context, backend_id, drone_id, TerminationKind.SOFT, TerminationReason.SWEPT)
        await asyncio.sleep(wait_s)
