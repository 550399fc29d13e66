"""Terminates idle and expired backends of the connected drones; polls every few seconds.

`plane.decisions.backends.idle_sweep` decides, from the database's clock. `supervised_loop` restarts the loop, with a
growing delay, while the database is unavailable.
"""

from __future__ import annotations

import asyncio

import structlog

from plane.controller.nodes.node_registry import NodeRegistry
from plane.controller.termination import terminate_backends
from plane.database import backends
from plane.database.pool import Database
from plane.decisions.backends.idle_sweep import sweep
from plane.protocol.backend_state import TerminationKind, TerminationReason
from plane.protocol.names import NodeKind

__all__ = ["run_sweeper"]

log = structlog.get_logger("plane.controller")


async def run_sweeper(db: Database, nodes: NodeRegistry) -> None:
    """Sweep the backends of this controller's drones until cancelled.

    Raises:
        DatabaseUnavailable
    """
    while True:
        await asyncio.sleep(await _sweep(db, nodes))


async def _sweep(db: Database, nodes: NodeRegistry) -> float:
    """Terminate what is due, and return the seconds until the next poll."""
    drones = nodes.connected(NodeKind.DRONE)
    due, wait_s = sweep(await backends.backends_to_sweep(db, drones) if drones else [])
    for backend in due:
        log.info("terminating idle or expired backend", backend=backend.backend_id)
    await terminate_backends(
        db,
        [(backend.backend_id, backend.drone_id) for backend in due],
        TerminationKind.SOFT,
        TerminationReason.SWEPT,
    )
    return wait_s
