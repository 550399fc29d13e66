"""The stream of a backend's states, as server-sent events: past ones first, then each as it comes.

Thousands of readers may watch at once, many of them one backend: what is the same for all of them is done once, and
nothing is done for one that has nothing to hear but a sign of life now and then.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import cast

from aiohttp import ClientConnectionResetError, web

from plane.controller.context import CONTEXT
from plane.controller.endpoints import EVENT_STREAM, Endpoint, Parameter
from plane.database import backends
from plane.database.notifications import Overflowed
from plane.protocol import codec
from plane.protocol.backend_state import (
    BackendStatus,
    BackendStatusStreamEntry,
    public_entry,
    state_from_json,
)
from plane.protocol.notifications import Event, EventKind
from plane.protocol.times import DbTime

__all__ = ["STATUS_STREAM_ENDPOINTS"]

KEEP_ALIVE_INTERVAL_S = 15.0
# A reader that takes nothing for this long is dropped; it comes back with Last-Event-ID.
WRITE_LIMIT_S = 15.0
# Less than this never waits for the reader, unless earlier data does.
NEVER_WAITS_BYTES = 16 * 1024

_KEEP_ALIVE = b":\n\n"


async def _status_stream(request: web.Request) -> web.StreamResponse:
    """Ends after `terminated` (A16). ``Last-Event-ID`` skips what the client has seen.

    An unknown backend gives an empty stream that stays open.
    """
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    reader = _Reader(request)
    try:
        # Subscribed before history is read: what happens in between comes twice, and is sent once.
        with context.bus.subscribe(EventKind.BACKEND_STATE, backend_id) as events:
            past = await backends.history(context.db, backend_id)
            await reader.begin()
            for row in past:
                await reader.send(row.state.status.number, _text(public_entry(row.state, row.time)))
            while not reader.has_seen_the_end:
                event = await events.next_within(KEEP_ALIVE_INTERVAL_S)
                await (reader.keep_alive() if event is None else reader.send(*_shown(event)))
        await reader.end()
    except (ClientConnectionResetError, ConnectionError, TimeoutError, Overflowed):
        # The reader is gone, stalled or too slow. Cutting the stream makes a live one come back for the rest.
        reader.cut()
    return reader.response


class _Reader:
    """One client of a stream, and what it has seen."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._seen = _status_number(request.headers.get("Last-Event-ID"))
        self.response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"})

    @property
    def has_seen_the_end(self) -> bool:
        return self._seen >= BackendStatus.TERMINATED.number

    async def begin(self) -> None:
        await self.response.prepare(self._request)

    async def send(self, number: int, text: bytes) -> None:
        """Send an entry unless it is not above what was seen: statuses only rise."""
        if number > self._seen:
            self._seen = number
            await self._write(text)

    async def keep_alive(self) -> None:
        await self._write(_KEEP_ALIVE)

    async def _write(self, data: bytes) -> None:
        # uvloop's transports are no asyncio.WriteTransport, though they have its methods.
        transport = cast("asyncio.WriteTransport | None", self._request.transport)
        if transport is None:
            raise ConnectionResetError
        if len(data) < NEVER_WAITS_BYTES and not transport.get_write_buffer_size():
            await self.response.write(data)
            return
        async with asyncio.timeout(WRITE_LIMIT_S):
            await self.response.write(data)

    async def end(self) -> None:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await self.response.write_eof()

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _shown(event: Event) -> tuple[int, bytes]:
    """The number of an event's status, and what readers get to see."""
    return _shown_once(codec.encode(event.payload), int(event.timestamp.timestamp() * 1000))


# Readers of one backend come one after the other; a state may be large, so few are kept.
@lru_cache(maxsize=32)
def _shown_once(state: bytes, time_ms: int) -> tuple[int, bytes]:
    entry = public_entry(state_from_json(state), DbTime(time_ms))
    return entry.status.number, _text(entry)


def _text(entry: BackendStatusStreamEntry) -> bytes:
    return b"data: " + codec.encode(entry) + f"\nid: {entry.status}\n\n".encode()


def _status_number(last_event_id: str | None) -> int:
    """The number of a ``Last-Event-ID``; 0 for none, or one that is no status."""
    try:
        return BackendStatus(last_event_id).number if last_event_id else 0
    except ValueError:
        return 0


STATUS_STREAM_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/pub/b/{backend}/status-stream",
        also=("/pub/c/{cluster}/b/{backend}/status-stream",),
        handle=_status_stream,
        summary="Past states of a backend, then each as it comes, until it has ended",
        role=None,
        media=EVENT_STREAM,
        parameters=(Parameter("Last-Event-ID", "header", str, "Skip what comes up to this status"),),
    ),
)
