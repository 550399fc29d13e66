"""The page of webhooks: where events are posted to, how far, and the last error. `plane admin webhook` changes them."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.database import webhooks
from plane.decisions.access import Role

__all__ = ["Webhooks"]


class Webhooks:
    """The page of one controller's webhooks."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes. As in the API, only administrators see URLs of receivers."""
        return (
            ConsoleRoute("GET", "/console/webhooks", self._page, Role.ADMIN),
            ConsoleRoute("GET", "/console/live/webhooks", self._live, Role.ADMIN),
        )

    async def _page(self, _: web.Request, visitor: Visitor) -> web.Response:
        parts = await self._render()
        return self._parts.page("webhooks.html", visitor, table=parts["fragment"])

    async def _live(self, request: web.Request, _: Visitor) -> web.StreamResponse:
        mailbox = Mailbox()
        with self._parts.views.watch("webhooks", self._render, mailbox):
            return await self._parts.send_events(request, mailbox)

    async def _render(self) -> Mapping[str, str]:
        found = await webhooks.list_webhooks(self._parts.context.db)
        return {"fragment": self._parts.renderer.fragment("webhooks_table.html", webhooks=found)}
