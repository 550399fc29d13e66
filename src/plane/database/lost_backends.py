"""Backends whose drone is lost. Statements: ``lost_backends.sql``; decided in `decisions.backends.lost_drones`."""

from __future__ import annotations

from collections.abc import Sequence

from plane.database.pool import Transaction
from plane.database.statements import statements
from plane.decisions.backends.lost_drones import SuspectBackend
from plane.protocol.backend_state import BackendStatus
from plane.timing import (
    DRONE_LOST_AFTER_S,
    KEY_GONE_AFTER_S,
    KEY_HARD_TERMINATE_AFTER_S,
    KEY_LEASE_S,
    SCHEDULED_TIMEOUT_S,
    TERMINATE_AGAIN_AFTER_S,
)

__all__ = ["PAGE", "doubtful", "send_again", "try_lock"]

PAGE = 500
# Any number that no other program on the database uses.
ADVISORY_LOCK = 0x504C_414E_4552

_SQL = statements("lost_backends")


async def try_lock(db: Transaction) -> bool:
    """Whether this controller may reap until the transaction ends; false while another does."""
    rows = await db.fetch(_SQL["try_reaper_lock"], ADVISORY_LOCK)
    mine: bool = rows[0]["mine"]
    return mine


async def doubtful(db: Transaction) -> list[SuspectBackend]:
    """A page of the backends that may be lost or stuck."""
    rows = await db.fetch(
        _SQL["doubtful_backends"],
        DRONE_LOST_AFTER_S,
        SCHEDULED_TIMEOUT_S,
        KEY_LEASE_S - KEY_HARD_TERMINATE_AFTER_S,
        PAGE,
        KEY_GONE_AFTER_S,
        TERMINATE_AGAIN_AFTER_S,
    )
    return [
        SuspectBackend(
            backend_id=row["id"],
            drone_id=row["drone_id"],
            status=BackendStatus(row["last_status"]),
            drone_silent_s=row["drone_silent_s"],
            in_status_s=row["in_status_s"],
            past_hard_deadline=row["past_hard_deadline"],
            spawn_acknowledged=row["spawn_acknowledged"],
            key_gone=row["key_gone"],
            end_ordered_s=row["end_ordered_s"],
        )
        for row in rows
    ]


async def send_again(db: Transaction, backend_ids: Sequence[str]) -> None:
    """Have the spawn actions of these backends sent to their drones once more."""
    await db.fetch(_SQL["send_spawn_again"], backend_ids)
