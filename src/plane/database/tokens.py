"""Revocation of connection tokens. The SQL is in ``tokens.sql``."""

from __future__ import annotations

from plane.database.pool import Database
from plane.database.statements import statements

__all__ = ["revoke"]

_SQL = statements("tokens")


async def revoke(db: Database, backend_id: str, user: str) -> int:
    """Delete all of a user's tokens for a backend, notify the proxies, and return the number of tokens."""
    row = await db.fetchrow(_SQL["revoke_tokens"], backend_id, user)
    assert row is not None
    count: int = row["number"]
    return count
