"""A connection to a test's database, to look at rows or to change them behind the controllers' backs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

__all__ = ["END_LISTENERS", "END_OTHER_SESSIONS", "WAITING_FOR_A_LOCK", "WAITING_FOR_THIS_SESSION", "sql"]

# The server is shared by the databases of all tests that run: each of these is about its own database.

END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()
"""
END_LISTENERS = f"{END_OTHER_SESSIONS} AND query LIKE 'LISTEN%'"
WAITING_FOR_A_LOCK = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
# For a session in a transaction, in which pg_stat_activity does not change.
WAITING_FOR_THIS_SESSION = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""


@asynccontextmanager
async def sql(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed when the block ends."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
