"""Log requests and their responses between controllers. Nothing is stored. The SQL is in ``log_requests.sql``."""

from __future__ import annotations

from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.logs import LogsRead, ReadLogs
from plane.protocol.notifications import EventKind

__all__ = ["request", "respond"]

_SQL = statements("log_requests")


async def request(db: Database, drone_id: int, read: ReadLogs) -> None:
    """Send a request to the controller to which the drone is connected."""
    await db.execute(_SQL["notify_logs"], str(EventKind.LOGS_WANTED), str(drone_id), codec.encode(read).decode())


async def respond(db: Database, read: LogsRead) -> None:
    """Send a drone's response to the controller that made the request."""
    await db.execute(_SQL["notify_logs"], str(EventKind.LOGS_READ), read.request_id, codec.encode(read).decode())
