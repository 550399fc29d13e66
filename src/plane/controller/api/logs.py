"""A backend's output, as text or as server-sent events, once or followed.

The drone is asked page by page, each time when the reader has taken the page before: a slow reader slows only itself,
and nothing is held for one that has gone.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import AsyncGenerator
from contextlib import nullcontext

from aiohttp import web

from plane.controller.api.endpoints import EVENT_STREAM, TEXT, Endpoint, Parameter
from plane.controller.api.query_params import flag, number
from plane.controller.api.responses import no_such_backend
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

__all__ = ["LOG_ENDPOINTS"]

DEFAULT_TAIL = 1000
LARGEST_TAIL = 1_000_000
# How long a drone waits for a line before it answers that there is none.
FOLLOW_WAIT_S = 5.0
# How long an answer may take beyond that.
ANSWER_LIMIT_S = 5.0
# A reader that takes nothing for this long is dropped.
WRITE_LIMIT_S = 60.0

_NUMBER = re.compile(r"[0-9]{1,19}")


async def _logs(request: web.Request) -> web.StreamResponse:
    """Lines as they are; with ``Accept: text/event-stream`` as events, whose ids a client may go on after."""
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    as_events = EVENT_STREAM in request.headers.get("Accept", "")
    follow = flag(request, "follow")
    tail = number(request, "tail", 0, LARGEST_TAIL)
    after = number(request, "after", 0, 2**63 - 1)
    if after is None and as_events and (last := request.headers.get("Last-Event-ID")) and _NUMBER.fullmatch(last):
        after = int(last)
    found = await backends.state_now(context.db, backend_id)
    if found is None:
        raise no_such_backend()
    if after is None and tail is None:
        tail = DEFAULT_TAIL
    pages = (_followed_pages if follow else _present_pages)(context, found[1], backend_id, after, tail)
    # Before anything is sent an error still has a status of its own.
    first = await anext(pages)
    media = EVENT_STREAM if as_events else f"{TEXT}; charset=utf-8"
    response = web.StreamResponse(headers={"Content-Type": media, "Cache-Control": "no-cache"})
    await response.prepare(request)
    try:
        with context.streams.entered() if follow else nullcontext():
            await _write(response, first, as_events=as_events)
            async for page in pages:
                await _write(response, page, as_events=as_events)
        async with asyncio.timeout(WRITE_LIMIT_S):
            await response.write_eof()
    except (ConnectionError, TimeoutError, Overflowed, ApiFailure):
        # The reader, or the drone, is gone; cutting makes a live reader come back for the rest.
        if request.transport is not None:
            request.transport.abort()
    finally:
        await pages.aclose()
    return response


async def _present_pages(
    context: Context, drone_id: int, backend_id: str, after: int | None, tail: int | None
) -> AsyncGenerator[LogPage, None]:
    """Yield page after page, until the end of what there was at first.

    Raises:
        ApiFailure: the drone does not answer, or has no logs.
    """
    reading = BoundedLogRead(tail)
    page = await _page(context, drone_id, backend_id, after, tail, 0.0)
    yield LogPage(reading.select(page.lines), page.ended)
    if not page.ended and not reading.has_ended:
        reading.end_ns = await _newest(context, drone_id, backend_id)
    while not page.ended and not reading.has_ended:
        page = await _page(context, drone_id, backend_id, page.lines[-1].time_ns, None, 0.0)
        yield LogPage(reading.select(page.lines), page.ended)


async def _followed_pages(
    context: Context, drone_id: int, backend_id: str, after: int | None, tail: int | None
) -> AsyncGenerator[LogPage, None]:
    """Yield page after page, as lines come, until the backend has ended; raises as `_present_pages`."""
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
    asked = ReadLogs(request_id, backend_id, after, tail, round(wait_s * 1000))
    with context.bus.subscribe(EventKind.LOGS_READ, request_id) as answers:
        await log_requests.ask(context.db, drone_id, asked)
        event = await answers.next_within(wait_s + ANSWER_LIMIT_S)
    if event is None:
        raise ApiFailure(504, ApiErrorKind.OTHER, "The backend's drone does not answer; its output is on its machine")
    try:
        read = codec.convert(event.payload, LogsRead)
    except MessageError as error:
        raise ApiFailure(502, ApiErrorKind.OTHER, f"The drone's answer is not understood: {error}") from None
    if read.error:
        raise ApiFailure(404, ApiErrorKind.NOT_FOUND, read.error)
    return read.page


async def _write(response: web.StreamResponse, page: LogPage, *, as_events: bool) -> None:
    text = "".join(map(_event if as_events else _row, page.lines))
    if as_events and not text:
        # Tells a live reader, and what is in between, that the stream lives.
        text = ":\n\n"
    if text:
        async with asyncio.timeout(WRITE_LIMIT_S):
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
        handle=_logs,
        summary="A backend's output with its times; kept for an hour after its end. Events with that Accept header",
        role=Role.READ,
        media=TEXT,
        refusals=(404, 502, 504),
        parameters=(
            Parameter("tail", "query", str, f"Only the last so many lines; default {DEFAULT_TAIL}"),
            Parameter("follow", "query", str, "true: go on with new lines until the backend ends"),
            Parameter("after", "query", str, "Only lines after this time, nanoseconds since 1970, as in an event's id"),
            Parameter("Last-Event-ID", "header", str, "The same, sent by clients that come back"),
        ),
    ),
)
