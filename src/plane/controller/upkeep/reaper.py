"""Gives up lost backends, ends those without a key, wakes those that are stuck: one controller at a time, for all.

Decided by `plane.decisions.backends.lost_drones` (A7). Which controller does it does not matter: the first that looks.
"""

from __future__ import annotations

import asyncio

import structlog

from plane import timing
from plane.controller.termination import order_termination
from plane.database import lost_backends
from plane.database.backends import StateChange, record_states
from plane.database.pool import Database, DatabaseUnavailable
from plane.decisions.backends.lost_drones import ReapAction, classify, lost_state
from plane.protocol.backend_state import TerminationKind, TerminationReason

__all__ = ["reap", "reap_for_ever"]

log = structlog.get_logger("plane.controller")


async def reap_for_ever(db: Database) -> None:
    """Look every few seconds, until cancelled."""
    while True:
        try:
            # A full page that changed something is followed by the next at once.
            while await reap(db) >= lost_backends.PAGE:
                pass
        except DatabaseUnavailable as error:
            log.warning("lost drones not looked for; trying again", error=str(error))
        await asyncio.sleep(timing.REAP_INTERVAL_S)


async def reap(db: Database) -> int:
    """Look once; returns how many backends something was done about. 0 too while another controller does it.

    Raises:
        DatabaseUnavailable
    """
    async with db.transaction() as transaction:
        if not await lost_backends.try_lock(transaction):
            return 0
        judged = [(backend, classify(backend)) for backend in await lost_backends.doubtful(transaction)]
        given_up = [backend for backend, verdict in judged if verdict is ReapAction.MARK_LOST]
        to_end = [backend for backend, verdict in judged if verdict is ReapAction.TERMINATE]
        stuck = [backend for backend, verdict in judged if verdict is ReapAction.RESEND]
        if given_up:
            await record_states(
                transaction, [StateChange(backend.backend_id, lost_state(backend)) for backend in given_up]
            )
        if stuck:
            await lost_backends.send_again(transaction, [backend.backend_id for backend in stuck])
    for backend in given_up:
        log.warning("backend is lost", backend=backend.backend_id, why=lost_state(backend).message)
    for backend in to_end:
        log.warning("backend's key has expired; ordering its drone to end it", backend=backend.backend_id)
        kind, reason = TerminationKind.HARD, TerminationReason.LOST
        await order_termination(db, backend.backend_id, backend.drone_id, kind, reason)
    for backend in stuck:
        log.warning("backend does not start; its action is sent again", backend=backend.backend_id)
    return len(given_up) + len(to_end) + len(stuck)
