"""Revocation of connection tokens. The SQL is in ``tokens.sql``."""

from __future__ import annotations

from plane.database.pool import Transaction
from plane.database.statements import statements

__all__ = ["revoke"]

_SQL = statements("tokens")


async def revoke(db: Transaction, backend_id: str, user: str) -> int:
    """Delete all of a user's tokens for a backend, notify the proxies, and return the number of tokens."""
    rows = await db.fetch(_SQL["revoke_tokens"], backend_id, user)
    count: int = rows[0]["number"]
    return count
