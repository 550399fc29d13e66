"""Handles lost backends: marks them lost, ends those without a key, re-sends orders to those that are stuck.

It also records in the event feed which drones are lost. `plane.decisions.backends.lost_drones` and
`plane.decisions.drones.silence` decide. One controller at a time does this for all of them: the one that
gets the lock.
"""

from __future__ import annotations

import asyncio

import structlog

from plane import timing
from plane.controller.termination import terminate_backends
from plane.database import event_feed, lost_backends
from plane.database.backends import StateChange, record_states
from plane.database.pool import Database, Transaction
from plane.decisions.backends.lost_drones import ReapAction, classify, lost_state
from plane.decisions.drones.silence import SilentDrone, is_lost
from plane.protocol.backend_state import TerminationKind, TerminationReason

__all__ = ["reap", "run_reaper"]

log = structlog.get_logger("plane.controller")


async def run_reaper(db: Database, *, interval_s: float = timing.REAP_INTERVAL_S) -> None:
    """Poll for lost backends until cancelled.

    Raises:
        DatabaseUnavailable
    """
    while True:
        # A full page that changed something is followed by the next one at once.
        while await reap(db) >= lost_backends.PAGE:
            pass
        await asyncio.sleep(interval_s)


async def reap(db: Database) -> int:
    """Handle one page of suspect backends and return how many were acted on; 0 while another controller reaps.

    Raises:
        DatabaseUnavailable
    """
    async with db.transaction() as transaction:
        if not await lost_backends.try_lock(transaction):
            return 0
        classified = [(backend, classify(backend)) for backend in await lost_backends.suspects(transaction)]
        abandoned = [backend for backend, action in classified if action is ReapAction.MARK_LOST]
        keyless = [backend for backend, action in classified if action is ReapAction.TERMINATE]
        stuck = [backend for backend, action in classified if action is ReapAction.RESEND]
        if abandoned:
            await record_states(
                transaction,
                [StateChange(backend.backend_id, lost_state(backend), uncertain=True) for backend in abandoned],
            )
        if stuck:
            await lost_backends.resend_spawns(transaction, [backend.backend_id for backend in stuck])
        lost_drones = await _record_lost_drones(transaction)
    for drone in lost_drones:
        log.warning("drone is lost", drone=drone.name)
    for backend in abandoned:
        log.warning("backend is lost", backend=backend.backend_id, reason=lost_state(backend).message)
    for backend in keyless:
        log.warning("backend's key has expired; terminating the backend", backend=backend.backend_id)
    await terminate_backends(
        db,
        [(backend.backend_id, backend.drone_id) for backend in keyless],
        TerminationKind.HARD,
        TerminationReason.LOST,
    )
    for backend in stuck:
        log.warning("backend does not start; its spawn action is sent again", backend=backend.backend_id)
    return len(abandoned) + len(keyless) + len(stuck)


async def _record_lost_drones(transaction: Transaction) -> list[SilentDrone]:
    silent = await event_feed.silent_drones(transaction)
    lost = [drone for drone in silent if is_lost(drone)]
    if silent:
        await event_feed.record_lost_drones(
            transaction, [drone.drone_id for drone in silent], [drone.drone_id for drone in lost]
        )
    return lost
