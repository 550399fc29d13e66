"""The connection of the commands of `plane db`."""

from __future__ import annotations

import subprocess
import sys

OPENS = """
import asyncio
from contextlib import asynccontextmanager
from unittest import mock
from plane.cli.db import connection

@asynccontextmanager
async def open_pool(url, pool_size):
    connection.pool.log.warning("database connection closed after an error")
    yield None

async def main():
    with mock.patch.object(connection.pool, "open_database", open_pool):
        async with connection.open_database("postgresql://plane@db/plane"):
            print("result")

asyncio.run(main())
"""


def test_warnings_of_the_database_are_not_among_the_results() -> None:
    done = subprocess.run([sys.executable, "-c", OPENS], check=True, capture_output=True, text=True)
    assert done.stdout == "result\n"
    assert "database connection closed after an error" in done.stderr
