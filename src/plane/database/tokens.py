"""Revocation of connection tokens. The SQL is in ``tokens.sql``."""

from __future__ import annotations

from typing import Any

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.protocol import codec

__all__ = ["recent_revocations", "revoke"]

_SQL = statements("tokens")


async def revoke(db: Transaction, backend_id: str, user: str) -> int:
    """Delete all of a user's tokens for a backend, notify the proxies, and return the number of tokens."""
    rows = await db.fetch(_SQL["revoke_tokens"], backend_id, user)
    count: int = rows[0]["number"]
    return count


async def recent_revocations(db: Database, within_s: float) -> list[tuple[str, Any]]:
    """Return the revocations of the last ``within_s`` seconds, oldest first: the backend, and what was announced."""
    rows = await db.fetch(_SQL["recent_revocations"], within_s)
    return [(row["backend_id"], codec.decode(row["data"], dict)) for row in rows]
