"""A connection to a test's database, to look at rows or to change them behind the controllers' backs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

__all__ = ["sql"]


@asynccontextmanager
async def sql(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed when the block ends."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
