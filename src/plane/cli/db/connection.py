"""Opens the database for a command of `plane db`, which imports this module when it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plane.cli.logs import set_up_logs
from plane.database import pool

__all__ = ["open_database"]


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[pool.Database]:
    """Open one connection while the block runs. Warnings are logged to stderr, so that stdout has only the result.

    Raises:
        ConfigurationError: cannot connect; the message has the reason.
    """
    set_up_logs("warning")
    async with pool.open_database(url, pool_size=1) as database:
        yield database
