"""The list of backends: filters, pages, and the current states of the rows that a page shows.

The stream of a page changes the states of its rows where they are: rows neither move nor appear under a reader's hands.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack

from aiohttp import web

from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox, encode_event
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.database import console
from plane.decisions.access import Role
from plane.decisions.console.backend_query import ALL, LIVE, parse_query, parse_watched
from plane.protocol.backend_state import BackendStatus
from plane.protocol.notifications import Event, EventKind

__all__ = ["BackendList"]

# Two hundred pages that show other rows each, half a kilobyte per row.
MAX_RENDERED = 10_000


class BackendList:
    """The pages of one controller's list of backends."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts
        # The events of rows by id, status and time; the oldest are dropped first.
        self._rendered: OrderedDict[tuple[str, BackendStatus, int], bytes] = OrderedDict()

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        return (
            ConsoleRoute("GET", "/console/backends", self._page, Role.READ),
            ConsoleRoute("GET", "/console/live/backends", self._live, Role.READ),
        )

    async def _page(self, request: web.Request, visitor: Visitor) -> web.Response:
        query = parse_query(request.query)
        rows, more = await console.page_of_backends(self._parts.context.db, query)
        return self._parts.page(
            "backends.html",
            visitor,
            query=query,
            rows=rows,
            next_page=query.next_page(rows[-1].since_us, rows[-1].id).address() if more else None,
            first_page=None if query.after is None else query.first_page().address(),
            choices=(LIVE, *BackendStatus, ALL),
        )

    async def _live(self, request: web.Request, _: Visitor) -> web.StreamResponse:
        ids = parse_watched(request.query.get("ids", ""))
        mailbox = Mailbox()

        def on_state(event: Event) -> None:
            status = BackendStatus((event.payload or {})["status"])
            since_us = int(event.timestamp.timestamp() * 1_000_000)
            assert event.key is not None
            self._put(
                mailbox, console.BackendRow(id=event.key, status=status, since_us=since_us, state=event.payload or {})
            )

        with ExitStack() as stack:
            # Subscribed before the states are read, so that none is missed.
            for backend_id in ids:
                stack.enter_context(
                    self._parts.context.bus.subscribe_callback(on_state, EventKind.BACKEND_STATE, backend_id)
                )
            for row in await console.current_states(self._parts.context.db, ids):
                self._put(mailbox, row)
            return await self._parts.send_events(request, mailbox)

    def _put(self, mailbox: Mailbox, row: console.BackendRow) -> None:
        """Put the row's state into a page's mailbox. Rendered once for all pages that show the row."""
        place = (row.id, row.status, row.since_us)
        event = self._rendered.get(place)
        if event is None:
            fragment = self._parts.renderer.fragment("backend_status.html", row=row, replaces=True)
            event = self._rendered[place] = encode_event("fragment", fragment)
            if len(self._rendered) > MAX_RENDERED:
                self._rendered.popitem(last=False)
        mailbox.put(row.id, event)
