"""Leases of keys. The SQL is in ``keys.sql``."""

from __future__ import annotations

from collections.abc import Sequence

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.timing import KEY_LEASE_S

__all__ = ["prevent_renewal", "renew"]

_SQL = statements("keys")


async def renew(db: Database | Transaction, backend_ids: Sequence[str]) -> list[bool]:
    """Extend the leases of the backends' keys. False for a key that is missing or not renewable."""
    renewed = {row["id"] for row in await db.fetch(_SQL["renew_keys"], backend_ids, KEY_LEASE_S)}
    return [backend_id in renewed for backend_id in backend_ids]


async def prevent_renewal(db: Database, backend_id: str) -> bool:
    """Let the backend's key expire with its current lease. False if the backend holds no key."""
    return await db.fetchrow(_SQL["prevent_renewal"], backend_id) is not None
