"""Leases of keys in the database. Statements: ``keys.sql``."""

from __future__ import annotations

from plane.database.pool import Database
from plane.database.statements import statements
from plane.timing import KEY_LEASE_S

__all__ = ["renew"]

_SQL = statements("keys")


async def renew(db: Database, backend_id: str) -> bool:
    """Extend the lease of the backend's key. False if it may not be renewed or is gone."""
    return await db.fetchrow(_SQL["renew_key"], backend_id, KEY_LEASE_S) is not None
