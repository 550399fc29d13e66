"""Questions for a backend's output, and their answers, from one controller to another. Nothing of it is stored."""

from __future__ import annotations

from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.logs import LogsRead, ReadLogs
from plane.protocol.notifications import EventKind

__all__ = ["answer", "ask"]

_SQL = statements("log_requests")


async def ask(db: Database, drone_id: int, request: ReadLogs) -> None:
    """Let the controller to which the drone is connected ask it."""
    await db.execute(_SQL["notify_logs"], str(EventKind.LOGS_WANTED), str(drone_id), codec.encode(request).decode())


async def answer(db: Database, read: LogsRead) -> None:
    """Let the controller that asked know."""
    await db.execute(_SQL["notify_logs"], str(EventKind.LOGS_READ), read.request_id, codec.encode(read).decode())
