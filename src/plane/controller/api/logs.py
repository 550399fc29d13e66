"""A backend's output, as text or as server-sent events, optionally followed.

Pages are requested from the drone one by one, each after the reader has received the previous one. A slow reader
therefore delays only itself, and nothing is held for one that has disconnected.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import nullcontext

from aiohttp import web

from plane.controller.api.endpoints import EVENT_STREAM, TEXT, Endpoint, Parameter
from plane.controller.api.query_params import flag, number, stream_position
from plane.controller.api.responses import backend_not_found
from plane.controller.context import CONTEXT, Context
from plane.database import backends, log_requests
from plane.database.event_bus import Overflowed
from plane.decisions.access import Role
from plane.decisions.backends.log_selection import BoundedLogRead
from plane.protocol import codec
from plane.protocol.errors import ApiErrorKind, ApiFailure, MessageError
from plane.protocol.logs import LogLine, LogPage, LogsRead, ReadLogs
from plane.protocol.names import Prefix
from plane.protocol.notifications import EventKind
from plane.random_ids import random_name

__all__ = ["LOG_ENDPOINTS", "stream_logs"]

DEFAULT_TAIL = 1000
MAX_TAIL = 1_000_000
# How long a drone waits for a line before it responds with an empty page.
FOLLOW_WAIT_S = 5.0
# The same for lines that exist. A Docker engine orders those of the last quarter of a second first.
EXISTING_WAIT_S = 1.0
# How long a response may take beyond that.
RESPONSE_TIMEOUT_S = 5.0
# A reader that receives nothing for this long is dropped.
WRITE_TIMEOUT_S = 60.0


async def stream_logs(request: web.Request) -> web.StreamResponse:
    """Respond with lines of text; with ``Accept: text/event-stream`` with events, which a client can resume by id."""
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    as_events = EVENT_STREAM in request.headers.get("Accept", "")
    follow = flag(request, "follow")
    tail = number(request, "tail", 0, MAX_TAIL)
    after = stream_position(request)
    found = await backends.state_now(context.db, backend_id)
    if found is None:
        raise backend_not_found()
    if after is None and tail is None:
        tail = DEFAULT_TAIL
    pages = (_followed_pages if follow else _existing_pages)(context, found[1], backend_id, after, tail)
    # Until the response is started, an error can still have its own status.
    first = await anext(pages)
    media = EVENT_STREAM if as_events else f"{TEXT}; charset=utf-8"
    response = web.StreamResponse(headers={"Content-Type": media, "Cache-Control": "no-cache"})
    await response.prepare(request)
    try:
        with context.streams.entered() if follow else nullcontext():
            await _write(response, first, as_events=as_events)
            async for page in pages:
                await _write(response, page, as_events=as_events)
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write_eof()
    except (ConnectionError, TimeoutError, Overflowed, ApiFailure):
        # The reader or the drone has disconnected. After an abort, a live reader reconnects for the rest.
        if request.transport is not None:
            request.transport.abort()
    finally:
        await pages.aclose()
    return response


async def _existing_pages(
    context: Context, drone_id: int, backend_id: str, after: int | None, tail: int | None
) -> AsyncGenerator[LogPage, None]:
    """Yield pages up to the last line that exists at the time of the request.

    Raises:
        ApiFailure: the drone does not respond, or has no logs.
    """
    reading = BoundedLogRead(tail)
    page = await _page(context, drone_id, backend_id, after, tail, 0.0)
    yield LogPage(reading.select(page.lines), page.ended)
    if not page.ended and not reading.has_ended:
        reading.end_ns = await _newest(context, drone_id, backend_id)
    while not page.ended and not reading.has_ended:
        page = await _page(context, drone_id, backend_id, page.lines[-1].time_ns, None, EXISTING_WAIT_S)
        yield LogPage(reading.select(page.lines), page.ended)


async def _followed_pages(
    context: Context, drone_id: int, backend_id: str, after: int | None, tail: int | None
) -> AsyncGenerator[LogPage, None]:
    """Yield pages as lines are written, until the backend has ended. Raises like `_existing_pages`."""
    wait_s = 0.0
    while True:
        page = await _page(context, drone_id, backend_id, after, None if after is not None else tail, wait_s)
        yield page
        if page.ended:
            return
        if page.lines:
            after = page.lines[-1].time_ns
        wait_s = FOLLOW_WAIT_S


async def _newest(context: Context, drone_id: int, backend_id: str) -> int:
    """Return the time of the newest line, in nanoseconds by the drone's clock; 0: there is none."""
    page = await _page(context, drone_id, backend_id, None, 1, 0.0)
    return page.lines[-1].time_ns if page.lines else 0


async def _page(
    context: Context, drone_id: int, backend_id: str, after: int | None, tail: int | None, wait_s: float
) -> LogPage:
    request_id = random_name(Prefix.BACKEND)
    read = ReadLogs(request_id, backend_id, after, tail, round(wait_s * 1000))
    with context.bus.subscribe(EventKind.LOGS_READ, request_id) as responses:
        await log_requests.request(context.db, drone_id, read)
        event = await responses.next_within(wait_s + RESPONSE_TIMEOUT_S)
    if event is None:
        raise ApiFailure(
            504, ApiErrorKind.OTHER, "The backend's drone does not respond; its output is on the drone's machine"
        )
    try:
        found = codec.convert(event.payload, LogsRead)
    except MessageError as error:
        raise ApiFailure(502, ApiErrorKind.OTHER, f"The drone's response is invalid: {error}") from None
    if found.error:
        raise ApiFailure(404, ApiErrorKind.NOT_FOUND, found.error)
    return found.page


async def _write(response: web.StreamResponse, page: LogPage, *, as_events: bool) -> None:
    text = "".join(map(_event if as_events else _row, page.lines))
    if as_events and not text:
        # A keepalive for the reader and for proxies in between.
        text = ":\n\n"
    if text:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(text.encode(errors="replace"))


def _row(line: LogLine) -> str:
    return f"{_time(line)} {line.text}\n"


def _event(line: LogLine) -> str:
    data = codec.encode({"time": line.time_ns // 1_000_000, "text": line.text}).decode()
    return f"id: {line.time_ns}\ndata: {data}\n\n"


def _time(line: LogLine) -> str:
    at = datetime.datetime.fromtimestamp(line.time_ns // 1_000_000_000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{line.time_ns // 1_000_000 % 1000:03d}Z"


LOG_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/b/{backend}/logs",
        handle=stream_logs,
        summary="A backend's output with times, kept for an hour after its end, as text or (Accept) as events",
        role=Role.READ,
        media=TEXT,
        refusals=(404, 502, 504),
        parameters=(
            Parameter("tail", "query", str, f"Number of last lines; default {DEFAULT_TAIL}"),
            Parameter("follow", "query", str, "true: continue with new lines until the backend ends"),
            Parameter("after", "query", str, "Only lines after this time, nanoseconds since 1970, as in an event's id"),
            Parameter("Last-Event-ID", "header", str, "The same, sent by clients that reconnect"),
        ),
    ),
)
