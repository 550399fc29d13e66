"""Follows the events of a database from outside a controller; for `plane db events`.

`event_bus.EventBus` is for controllers: it replays, distributes, and reconnects. This reader yields events from now on,
and fails when its connection is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from plane.database.pool import CANNOT_CONNECT, DatabaseUnavailable, cannot_connect, connect
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.notifications import EVENTS_CHANNEL, Event

__all__ = ["follow_events"]

# Beyond this number of queued events the reader is too slow.
MAX_QUEUED = 10_000
PING_INTERVAL_S = 10.0
PING_TIMEOUT_S = 5.0

_SQL = statements("events")


async def follow_events(url: str) -> AsyncIterator[Event]:
    """Yield new events until the iteration is closed. Notifications that are not events of Plane are skipped.

    Raises:
        ConfigurationError: cannot connect.
        DatabaseUnavailable: the connection was lost, or the reader is too slow.
    """
    try:
        connection = await connect(url)
    except CANNOT_CONNECT as error:
        raise cannot_connect(error) from error
    inbox: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED)

    def on_notification(*args: object) -> None:
        if not inbox.full():
            inbox.put_nowait(str(args[-1]))

    try:
        await connection.add_listener(EVENTS_CHANNEL, on_notification)
        while True:
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    payload = await inbox.get()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=PING_TIMEOUT_S)
                continue
            if inbox.qsize() >= MAX_QUEUED - 1:
                raise DatabaseUnavailable("events arrive faster than they are read")
            try:
                event = codec.decode(payload, Event)
            except MessageError:
                continue
            if event.payload is None and event.id is not None:
                data = await connection.fetchval(_SQL["event"], event.id)
                event = msgspec.structs.replace(event, payload=codec.decode(data, dict) if data else None)
            yield event
    except CANNOT_CONNECT as error:
        raise DatabaseUnavailable(f"the connection to the database was lost: {error}") from error
    finally:
        connection.terminate()
