"""All pages of the console, and its parts: `add_console` is called by `plane.controller.app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from plane.controller.api.auth import SELF_GUARDED
from plane.controller.api.responses import ErrorResponses
from plane.controller.console.backend_detail import BackendDetail
from plane.controller.console.backend_list import BackendList
from plane.controller.console.drones import Drones
from plane.controller.console.events import Events
from plane.controller.console.guard import Guard, add_security_headers
from plane.controller.console.overview import Overview
from plane.controller.console.parts import ConsoleParts
from plane.controller.console.rendering import Renderer
from plane.controller.console.sign_in import SignIn
from plane.controller.console.static_files import StaticFiles
from plane.controller.console.streams import PageStreams, SharedViews
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.controller.console.webhooks import Webhooks
from plane.controller.context import Context
from plane.database.console import session_secret
from plane.decisions.access import Role
from plane.decisions.console.session import SessionSigner
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.notifications import EventKind

__all__ = ["Console", "start_console"]


class Console:
    """The console of one controller: its routes, and the guard of them all."""

    def __init__(self, parts: ConsoleParts, files: StaticFiles) -> None:
        self._guard = parts.guard
        pages = (
            SignIn(parts),
            Overview(parts),
            BackendList(parts),
            BackendDetail(parts),
            Drones(parts),
            Events(parts),
            Webhooks(parts),
        )
        self._routes = (
            files.route(),
            *(route for page in pages for route in page.routes()),
            ConsoleRoute("GET", "/console/{unknown:.*}", _not_found, Role.READ),
        )

    def add_to(self, app: web.Application) -> None:
        """Serve the console's pages in ``app``."""
        handlers = []
        for route in self._routes:
            handler = self._guard.wrap(route)
            handlers.append(handler)
            app.router.add_route(route.method, route.path, handler)
        app[SELF_GUARDED] = frozenset(handlers)
        app.on_response_prepare.append(add_security_headers)


@asynccontextmanager
async def start_console(context: Context, errors: ErrorResponses) -> AsyncIterator[Console]:
    """Run the parts of the console while the block runs.

    Raises:
        DatabaseUnavailable
    """
    files = StaticFiles()
    signer = SessionSigner(await session_secret(context.db))
    renderer = Renderer(files.address)
    parts = ConsoleParts(
        context=context,
        signer=signer,
        renderer=renderer,
        guard=Guard(context, signer, renderer, errors),
        views=SharedViews(),
        streams=PageStreams(context.streams),
    )
    try:
        with context.bus.subscribe_callback(parts.on_state_event, EventKind.BACKEND_STATE):
            yield Console(parts, files)
    finally:
        await parts.views.end()


async def _not_found(_: web.Request, __: Visitor) -> web.Response:
    raise ApiFailure(404, ApiErrorKind.NOT_FOUND, "The console has no such page")
