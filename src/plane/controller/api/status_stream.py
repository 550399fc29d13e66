"""The stream of a backend's states as server-sent events: past states first, then each new one.

Thousands of readers may follow streams at once, many of them of one backend. An entry is therefore encoded once for all
readers, with its HTTP framing. The event bus's callback writes it directly to each connection: no task wakes up, and
aiohttp is bypassed. The handler, one task per reader, sends the past states first and keepalives meanwhile, and ends
the response.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import ClientConnectionResetError, HttpVersion11, web

from plane.controller.api.endpoints import EVENT_STREAM, Endpoint, Parameter
from plane.controller.api.status_entries import (
    KEEP_ALIVE,
    STATUS_ENTRIES,
    StatusEntries,
    StatusEntry,
    status_entry,
)
from plane.controller.context import CONTEXT
from plane.database import backends
from plane.protocol.backend_state import BackendStatus
from plane.protocol.notifications import Event, EventKind
from plane.settings import ControllerLimits

__all__ = ["STATUS_STREAM_ENDPOINTS"]


async def _status_stream(request: web.Request) -> web.StreamResponse:
    """Stream states until `terminated`. ``Last-Event-ID`` skips the states that the client has seen.

    The stream of an unknown backend is empty and stays open.
    """
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    reader = _Reader(request, request.app[STATUS_ENTRIES], context.settings.limits)
    if request.method == "HEAD":
        # The response has no body.
        return reader.response
    try:
        # Subscribed before history is read: a state in between is received twice and sent once.
        with (
            context.streams.entered(),
            context.bus.subscribe_callback(reader.on_event, EventKind.BACKEND_STATE, backend_id),
        ):
            past = await backends.history(context.db, backend_id)
            await reader.send_past([status_entry(row) for row in past])
            await reader.wait_for_end()
        await reader.end()
    except (ClientConnectionResetError, ConnectionError, TimeoutError):
        # The reader has disconnected or stalls. After an abort, a live one reconnects for the rest.
        reader.abort()
    return reader.response


class _Reader:
    """One client of a stream, and the last status that it has seen."""

    def __init__(self, request: web.Request, entries: StatusEntries, limits: ControllerLimits) -> None:
        self._request = request
        self._entries = entries
        self._limits = limits
        self._chunked = request.version >= HttpVersion11
        self._seen = _status_number(request.headers.get("Last-Event-ID"))
        # Entries received before the past states were sent, by number; None from then on.
        self._early: dict[int, StatusEntry] | None = {}
        self._ended = asyncio.Event()
        self.response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"})

    def on_event(self, event: Event) -> None:
        """Handle an event of the backend; called by the event bus."""
        entry = self._entries.entry(event)
        if entry is None:
            return
        if self._early is not None:
            self._early[entry.number] = entry
        else:
            self._send(entry)

    async def send_past(self, past: list[StatusEntry]) -> None:
        """Send past entries and those received meanwhile. From then on, each entry is sent when it is received.

        Raises:
            ConnectionError, TimeoutError: the reader has disconnected or stalls.
        """
        await self.response.prepare(self._request)
        for entry in past:
            if entry.number > self._seen:
                self._seen = entry.number
                async with asyncio.timeout(self._limits.stream_write_s):
                    await self.response.write(entry.text)
        early, self._early = self._early or {}, None
        for number in sorted(early):
            self._send(early[number])
        self._end_if_seen()

    def _send(self, entry: StatusEntry) -> None:
        """Send an entry if its status is above the last one seen: statuses only rise.

        Does not wait, and yet the buffer is bounded: there are eight statuses, and only the last one's entry can be
        large. Its bytes are shared by all readers, and `end` waits until they are written.
        """
        if entry.number > self._seen:
            self._seen = entry.number
            self._write(entry.chunk if self._chunked else entry.text)
            self._end_if_seen()

    def _end_if_seen(self) -> None:
        if self._seen >= BackendStatus.TERMINATED.number:
            self._ended.set()

    def _write(self, data: bytes) -> None:
        transport = self._transport()
        if transport is None:
            self._ended.set()
        else:
            transport.write(data)

    def _transport(self) -> asyncio.WriteTransport | None:
        """Return the connection; None if it is closed."""
        # uvloop's transports are not asyncio.WriteTransport, though they have its methods.
        transport = cast("asyncio.WriteTransport | None", self._request.transport)
        return None if transport is None or transport.is_closing() else transport

    async def wait_for_end(self) -> None:
        """Return when the last status was sent; send keepalives until then.

        A reader stalls if bytes that were queued at one keepalive are still queued when the next one is due.

        Raises:
            ConnectionError, TimeoutError: the reader has disconnected or stalls.
        """
        stalls = False
        while not await self._ended_within(self._limits.stream_keep_alive_s):
            transport = self._transport()
            if transport is None:
                raise ConnectionResetError
            if not transport.get_write_buffer_size():
                stalls = False
                transport.write(KEEP_ALIVE.chunk if self._chunked else KEEP_ALIVE.text)
            elif stalls:
                raise TimeoutError
            else:
                stalls = True

    async def _ended_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Send the end of the response.

        Raises:
            ConnectionError, TimeoutError: the reader has disconnected or stalls.
        """
        async with asyncio.timeout(self._limits.stream_write_s):
            await self.response.write_eof()

    def abort(self) -> None:
        """Abort the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


def _status_number(last_event_id: str | None) -> int:
    """Return the status number of a ``Last-Event-ID``; 0 if it is absent or not a status."""
    try:
        return BackendStatus(last_event_id).number if last_event_id else 0
    except ValueError:
        return 0


STATUS_STREAM_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/pub/b/{backend}/status-stream",
        aliases=("/pub/c/{cluster}/b/{backend}/status-stream",),
        handle=_status_stream,
        summary="Past states of a backend, then each new one, until it is terminated",
        role=None,
        media=EVENT_STREAM,
        parameters=(Parameter("Last-Event-ID", "header", str, "Skip states up to this status"),),
    ),
)
