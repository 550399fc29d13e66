"""Checks of the database: reachable, version, schema, clock, and whether notifications pass."""

from __future__ import annotations

import asyncio
import secrets
import time

import asyncpg

from plane.database.pool import CANNOT_CONNECT, connect
from plane.decisions.diagnosis import (
    POOLER_ADVICE,
    Finding,
    Status,
    clock_finding,
    passed,
    pooler_finding,
    version_finding,
)
from plane.decisions.redaction import redacted
from plane.os_errors import error_reason

__all__ = ["check_clock", "check_connection", "check_notifications", "check_schema"]

# Through a pooler in transaction mode a notification never arrives; directly it takes a millisecond.
NOTIFICATION_TIMEOUT_S = 3.0


async def check_connection(url: str) -> Finding:
    """Check that the database can be reached, and its version."""
    try:
        connection = await connect(url)
    except CANNOT_CONNECT as error:
        if "startup parameter" in str(error):
            return Finding(Status.FAILED, f"a pooler refuses the connection: {error_reason(error)}", POOLER_ADVICE)
        return Finding(
            Status.FAILED,
            f"cannot connect: {redacted(error_reason(error))}",
            "check host, port, user, password and database of --db, pg_hba.conf of the server, and firewalls",
        )
    try:
        return version_finding(int(await connection.fetchval("SHOW server_version_num")))
    finally:
        await connection.close()


async def check_schema(url: str) -> Finding:
    """Check that the schema is there, or that this user can make it."""
    connection = await connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('backend_key') IS NOT NULL"):
            return passed("Plane's tables are there")
        if await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            return passed("empty; the first start of a controller makes the tables")
    finally:
        await connection.close()
    return Finding(
        Status.FAILED,
        "this user may not create tables",
        "make it the owner of the database: ALTER DATABASE NAME OWNER TO USER",
    )


async def check_clock(url: str) -> Finding:
    """Compare the database's clock with this machine's."""
    connection = await connect(url)
    try:
        before = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        # The middle of the round trip is the best estimate of when the server read its clock.
        ours = (before + time.time()) / 2
    finally:
        await connection.close()
    return clock_finding(theirs - ours)


async def check_notifications(url: str) -> Finding:
    """Check that a NOTIFY reaches another connection's LISTEN, as the event bus needs."""
    listening, notifying = await connect(url), await connect(url)
    arrived = asyncio.Event()
    channel = f"plane_doctor_{secrets.token_hex(4)}"
    try:
        await listening.add_listener(channel, lambda *_: arrived.set())
        await notifying.execute("SELECT pg_notify($1, '')", channel)
        try:
            async with asyncio.timeout(NOTIFICATION_TIMEOUT_S):
                await arrived.wait()
        except TimeoutError:
            return pooler_finding(notified=False)
        return pooler_finding(notified=True)
    except asyncpg.PostgresError:
        # A pooler in transaction mode loses prepared statements between two transactions.
        return pooler_finding(notified=False)
    finally:
        listening.terminate()
        notifying.terminate()
