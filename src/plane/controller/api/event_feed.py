"""``GET /ctrl/events``: pages of the event feed, or (``follow``) new events as server-sent events.

`plane.decisions.event_feed` decides what a caller may read and from where.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from plane.controller.api.auth import CALLER
from plane.controller.api.endpoints import EVENT_STREAM, Endpoint, Parameter
from plane.controller.api.query_params import MAX_ID, bad_parameter, flag, number, stream_position
from plane.controller.api.responses import json_response
from plane.controller.context import CONTEXT, Context
from plane.controller.feed_tail import FeedFollower
from plane.database import event_feed
from plane.database.event_feed import EventFilter
from plane.decisions.access import Role
from plane.decisions.event_feed import check_cursor, expand_types, readable_types
from plane.protocol import codec
from plane.protocol.event_feed import EventPage, EventType, FeedEvent

__all__ = ["EVENT_FEED_ENDPOINTS"]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


async def _events(request: web.Request) -> web.StreamResponse:
    wanted = _filter(request)
    if flag(request, "follow"):
        return await _follow(request, wanted)
    return json_response(await _page(request, wanted))


def _filter(request: web.Request) -> EventFilter:
    types: frozenset[EventType] | None = None
    if (text := request.query.get("types")) is not None:
        types = expand_types(part.strip() for part in text.split(","))
    key = request.query.get("key")
    if key is not None and "\0" in key:
        raise bad_parameter("key", "must not contain NUL")
    caller = request.get(CALLER)
    return EventFilter(readable_types(types, None if caller is None else caller.role), key)


async def _page(request: web.Request, wanted: EventFilter) -> EventPage:
    db = request.app[CONTEXT].db
    after = number(request, "after", 0, MAX_ID)
    before = number(request, "before", 1, MAX_ID)
    limit = number(request, "limit", 1, MAX_LIMIT) or DEFAULT_LIMIT
    if after is not None and before is not None:
        raise bad_parameter("before", "cannot be combined with after")
    window = await event_feed.feed_window(db)
    if after is not None:
        start = check_cursor(after, window.pruned, window.horizon)
        found = await event_feed.read_after(db, start, window.horizon, wanted, limit)
        return EventPage(events=found.events, cursor=found.reached, more=not found.at_end)
    newest = window.horizon if before is None else min(before - 1, window.horizon)
    found = await event_feed.read_before(db, newest, window.pruned, wanted, limit)
    older = None if found.at_end else found.reached
    return EventPage(events=found.events[::-1], cursor=max(newest, window.pruned), more=before is not None, older=older)


async def _follow(request: web.Request, wanted: EventFilter) -> web.StreamResponse:
    """Send events after the cursor, and new ones as they are stored, until the reader disconnects."""
    context = request.app[CONTEXT]
    after = stream_position(request)
    limits = context.settings.limits
    response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"})
    follower = FeedFollower(limits.queued_events)
    async with context.feed_tail.followed_by(follower):
        window = await event_feed.feed_window(context.db)
        start = window.horizon if after is None else check_cursor(after, window.pruned, window.horizon)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            with context.streams.entered():
                await _write(response, "", start, limits.stream_write_s)
                while start < window.horizon:
                    events, start, _ = await event_feed.read_after(context.db, start, window.horizon, wanted, MAX_LIMIT)
                    await _write(response, _text(events), start, limits.stream_write_s)
                await _send_new(context, response, follower, wanted, start)
        except (ConnectionError, TimeoutError):
            # The reader has disconnected or stalls.
            pass
        if request.transport is not None:
            # A live reader reconnects, and continues where it was.
            request.transport.abort()
    return response


async def _send_new(
    context: Context, response: web.StreamResponse, follower: FeedFollower, wanted: EventFilter, position: int
) -> None:
    """Send queued events above ``position`` until the follower has missed some.

    Raises:
        ConnectionError, TimeoutError: the reader has disconnected or stalls.
    """
    limits = context.settings.limits
    while not follower.overflowed:
        queued = await follower.next_within(limits.stream_keep_alive_s)
        new = [event for event in queued if event.id > position]
        position = new[-1].id if new else position
        matching = [event for event in new if wanted.matches(event)]
        if matching or not queued:
            await _write(response, _text(matching), position, limits.stream_write_s)


async def _write(response: web.StreamResponse, text: str, position: int, timeout_s: float) -> None:
    """Send events, then the position alone: also a reader that filters most events out can continue from there."""
    async with asyncio.timeout(timeout_s):
        await response.write(f"{text}id: {position}\n\n".encode(errors="replace"))


def _text(events: list[FeedEvent]) -> str:
    return "".join(f"id: {event.id}\ndata: {codec.encode(event).decode()}\n\n" for event in events)


EVENT_FEED_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/events",
        handle=_events,
        summary="Events of backends and drones, and (role admin) calls that changed something",
        role=Role.READ,
        response=EventPage,
        refusals=(410,),
        parameters=(
            Parameter("after", "query", str, "Only events after this cursor; 0: from the oldest that is kept"),
            Parameter("before", "query", str, "Only events before this one, the latest of them"),
            Parameter("types", "query", str, "Only these types, separated by commas; a star at the end: any rest"),
            Parameter("key", "query", str, "Only events of backends that were spawned for a key of this name"),
            Parameter("limit", "query", str, f"Maximum number, 1 to {MAX_LIMIT}; default {DEFAULT_LIMIT}"),
            Parameter("follow", "query", str, "true: respond with server-sent events that do not end"),
            Parameter("Last-Event-ID", "header", str, "With follow: the same as after, sent by clients that reconnect"),
        ),
    ),
)
