"""The pages of the event feed and of the audit log: events of a time, newest first, and a notice when there are more.

The audit log is the part of the feed that has the calls of the API; only administrators see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlencode

from aiohttp import web

from plane.controller.api.query_params import number
from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.database import event_feed
from plane.database.event_feed import EventFilter
from plane.decisions.access import Role
from plane.decisions.console.event_query import Feed, parse_kind, parse_text, types_of
from plane.protocol.event_feed import EventType

__all__ = ["Events"]

PAGE_ROWS = 50
# Pages that were opened at different places have views of their own.
POLL_INTERVAL_S = 5.0
MAX_CURSOR = 2**63 - 1


class Events:
    """The pages of one controller's event feed."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        return tuple(
            route
            for feed, role in ((Feed.EVENTS, Role.READ), (Feed.AUDIT, Role.ADMIN))
            for route in (
                ConsoleRoute("GET", f"/console/{feed}", partial(self._page, feed=feed), role),
                ConsoleRoute("GET", f"/console/live/{feed}", partial(self._live, feed=feed), role),
            )
        )

    async def _page(self, request: web.Request, visitor: Visitor, *, feed: Feed) -> web.Response:
        kind, key = parse_kind(request.query.get("kind", ""), feed), parse_text(request.query.get("key", ""))
        before = number(request, "before", 1, MAX_CURSOR)
        db = self._parts.context.db
        window = await event_feed.feed_window(db)
        newest = window.horizon if before is None else min(before - 1, window.horizon)
        found = await event_feed.read_before(
            db, newest, window.pruned, EventFilter(types_of(kind, feed), key or None), PAGE_ROWS
        )
        filters = {name: value for name, value in (("kind", kind), ("key", key)) if value}
        first = f"/console/{feed}?{urlencode(filters)}" if filters else f"/console/{feed}"
        return self._parts.page(
            "events.html",
            visitor,
            feed=feed,
            events=found.events,
            kind=kind,
            kinds=_kinds(feed),
            key=key,
            # A feed whose matches are rare is searched in parts.
            older=None if found.at_end else f"/console/{feed}?{urlencode({**filters, 'before': found.reached})}",
            first=None if before is None else first,
            live=None if before is not None else f"/console/live/{feed}?{urlencode({**filters, 'after': newest})}",
        )

    async def _live(self, request: web.Request, _: Visitor, *, feed: Feed) -> web.StreamResponse:
        kind, key = parse_kind(request.query.get("kind", ""), feed), parse_text(request.query.get("key", ""))
        after = number(request, "after", 0, MAX_CURSOR) or 0
        wanted = EventFilter(types_of(kind, feed), key or None)
        mailbox = Mailbox()
        render = partial(self._newer, after, wanted)
        # Pages that were opened at the same place share a view.
        with self._parts.views.watch(f"{feed} {after} {kind} {key}", render, mailbox, interval_s=POLL_INTERVAL_S):
            return await self._parts.send_events(request, mailbox)

    async def _newer(self, after: int, wanted: EventFilter) -> Mapping[str, str]:
        db = self._parts.context.db
        window = await event_feed.feed_window(db)
        start = max(after, window.pruned)
        found = await event_feed.read_after(db, start, window.horizon, wanted, PAGE_ROWS)
        count = len(found.events)
        fragment = self._parts.renderer.fragment("events_newer.html", count=count, more=not found.at_end)
        return {"fragment": fragment}


def _kinds(feed: Feed) -> list[str]:
    return [str(each) for each in EventType if each.is_admin is (feed is Feed.AUDIT)]
