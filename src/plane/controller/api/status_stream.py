"""The stream of a backend's states, as server-sent events: past ones first, then each as it comes.

Thousands of readers may watch at once, many of them one backend. So an entry is encoded once for all of them, with the
frame that HTTP puts around it, and is written to each one's connection in the moment in which the event bus hears of
it: no task wakes up, and aiohttp is not asked. Each reader's task, the handler, sends the past before that, a sign of
life now and then meanwhile, and ends the answer.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

import structlog
from aiohttp import ClientConnectionResetError, HttpVersion11, web

from plane.controller.api.endpoints import EVENT_STREAM, Endpoint, Parameter
from plane.controller.context import CONTEXT
from plane.database import backends
from plane.database.backends import StateRow
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, public_entry, state_from_builtins
from plane.protocol.errors import MessageError
from plane.protocol.notifications import Event, EventKind
from plane.protocol.times import DbTime

__all__ = ["STATUS_STREAM_ENDPOINTS"]

# A reader that has not taken what waited for it at the last sign of life, when the next one is due, is dropped.
KEEP_ALIVE_INTERVAL_S = 15.0
# So is one that takes longer than this for a past state, or for the last one. It comes back with Last-Event-ID.
WRITE_LIMIT_S = 15.0

log = structlog.get_logger("plane.controller")


async def _status_stream(request: web.Request) -> web.StreamResponse:
    """Ends after `terminated` (A16). ``Last-Event-ID`` skips what the client has seen.

    An unknown backend gives an empty stream that stays open.
    """
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    reader = _Reader(request)
    if request.method == "HEAD":
        # Has no body, and so no end to wait for.
        return reader.response
    try:
        # Heard of before history is read: what happens in between comes twice, and is sent once.
        with context.streams.entered(), context.bus.calling(reader.hear, EventKind.BACKEND_STATE, backend_id):
            past = await backends.history(context.db, backend_id)
            await reader.send_past([_entry(row) for row in past])
            await reader.until_the_end()
        await reader.end()
    except (ClientConnectionResetError, ConnectionError, TimeoutError):
        # The reader is gone, or stalled. Cutting the stream makes a live one come back for the rest.
        reader.cut()
    return reader.response


class _Entry(NamedTuple):
    """A state as readers get it: its status's number, and the bytes in a chunk of HTTP/1.1 and without one."""

    number: int
    chunk: bytes
    text: bytes


class _Reader:
    """One client of a stream, and what it has seen."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._chunked = request.version >= HttpVersion11
        self._seen = _status_number(request.headers.get("Last-Event-ID"))
        # What was heard before the past was sent, by number; None from then on.
        self._early: dict[int, _Entry] | None = {}
        self._over = asyncio.Event()
        self.response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"})

    def hear(self, event: Event) -> None:
        """Called by the event bus for each event of the backend."""
        entry = _LAST_EVENT.entry(event)
        if entry is None:
            return
        if self._early is not None:
            self._early[entry.number] = entry
        else:
            self._send(entry)

    async def send_past(self, past: list[_Entry]) -> None:
        """Send what was, and what was heard meanwhile; from then on each entry is sent as it is heard.

        Raises:
            ConnectionError, TimeoutError: the reader is gone, or stalled.
        """
        await self.response.prepare(self._request)
        for entry in past:
            if entry.number > self._seen:
                self._seen = entry.number
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await self.response.write(entry.text)
        early, self._early = self._early or {}, None
        for number in sorted(early):
            self._send(early[number])
        self._end_if_seen()

    def _send(self, entry: _Entry) -> None:
        """Send an entry unless it is not above what was seen: statuses only rise.

        Nothing is waited for, and yet the buffer has a bound: there are eight statuses, and only the last one's entry
        can be large. Its bytes are shared by all readers, and `end` waits until they are taken.
        """
        if entry.number > self._seen:
            self._seen = entry.number
            self._write(entry.chunk if self._chunked else entry.text)
            self._end_if_seen()

    def _end_if_seen(self) -> None:
        if self._seen >= BackendStatus.TERMINATED.number:
            self._over.set()

    def _write(self, data: bytes) -> None:
        transport = self._transport()
        if transport is None:
            self._over.set()
        else:
            transport.write(data)

    def _transport(self) -> asyncio.WriteTransport | None:
        """The connection; None if it is gone."""
        # uvloop's transports are no asyncio.WriteTransport, though they have its methods.
        transport = cast("asyncio.WriteTransport | None", self._request.transport)
        return None if transport is None or transport.is_closing() else transport

    async def until_the_end(self) -> None:
        """Return when the reader has seen the end, with signs of life until then.

        Raises:
            ConnectionError, TimeoutError: the reader is gone, or stalled.
        """
        stalls = False
        while not await self._over_within(KEEP_ALIVE_INTERVAL_S):
            transport = self._transport()
            if transport is None:
                raise ConnectionResetError
            if not transport.get_write_buffer_size():
                stalls = False
                transport.write(_KEEP_ALIVE.chunk if self._chunked else _KEEP_ALIVE.text)
            elif stalls:
                raise TimeoutError
            else:
                stalls = True

    async def _over_within(self, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Send the end of the answer.

        Raises:
            ConnectionError, TimeoutError: the reader is gone, or stalled.
        """
        async with asyncio.timeout(WRITE_LIMIT_S):
            await self.response.write_eof()

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class _LastEvent:
    """What readers get of an event. It is told to them one after the other, and then never again: one is remembered."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._entry: _Entry | None = None

    def entry(self, event: Event) -> _Entry | None:
        """The event's entry; None for a state that is none."""
        if event is not self._event:
            self._event, self._entry = event, _entry_of_event(event)
        return self._entry


_LAST_EVENT = _LastEvent()


def _entry_of_event(event: Event) -> _Entry | None:
    """What readers get of an event; None, and a warning, for a state that is none."""
    try:
        state = state_from_builtins(event.payload)
    except MessageError as error:
        log.warning("state not understood", backend=event.key, error=str(error))
        return None
    return _entry(StateRow(state, DbTime(int(event.timestamp.timestamp() * 1000))))


def _entry(row: StateRow) -> _Entry:
    entry = public_entry(row.state, row.time)
    text = b"data: " + codec.encode(entry) + f"\nid: {entry.status}\n\n".encode()
    return _framed(entry.status.number, text)


def _framed(number: int, text: bytes) -> _Entry:
    return _Entry(number, b"%x\r\n%b\r\n" % (len(text), text), text)


_KEEP_ALIVE = _framed(0, b":\n\n")


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
