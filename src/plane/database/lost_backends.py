"""Backends that may be lost, stuck, or without a key. The SQL is in ``lost_backends.sql``.

`plane.decisions.backends.lost_drones` decides what happens to them.
"""

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

__all__ = ["PAGE", "resend_spawns", "suspects", "try_lock"]

PAGE = 500
# An arbitrary number that no other program on the database uses.
ADVISORY_LOCK = 0x504C_414E_4552
# Longer than a controller's transaction may take: the server's process that holds the lock is stopped, or hangs.
HOLDER_STUCK_AFTER_S = 30.0

_SQL = statements("lost_backends")


async def try_lock(db: Transaction) -> bool:
    """Try to become the one controller that reaps, until the transaction ends."""
    rows = await db.fetch(_SQL["try_reaper_lock"], ADVISORY_LOCK, HOLDER_STUCK_AFTER_S)
    mine: bool = rows[0]["mine"]
    return mine


async def suspects(db: Transaction) -> list[SuspectBackend]:
    """Return a page of the backends that may be lost, stuck, or without a key."""
    rows = await db.fetch(
        _SQL["suspect_backends"],
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


async def resend_spawns(db: Transaction, backend_ids: Sequence[str]) -> None:
    """Mark the backends' spawn actions as unacknowledged, and notify their drones' controllers again."""
    await db.fetch(_SQL["resend_spawn_actions"], backend_ids)
