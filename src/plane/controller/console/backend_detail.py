"""The page of one backend: its states with times and reasons, output, memory and CPU; terminate, revoke and open it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import structlog
from aiohttp import web

from plane.controller.api.backends import terminate
from plane.controller.api.connect import connect
from plane.controller.api.logs import stream_logs
from plane.controller.api.responses import backend_not_found
from plane.controller.api.revocation import revoke
from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox, encode_event
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.controller.nodes.metrics_cache import decode_usage
from plane.database import console, inspection
from plane.decisions.access import Role
from plane.protocol import codec
from plane.protocol.backend_state import TerminationKind
from plane.protocol.control_api import BackendUsage, ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.inspection import BackendDetail as Detail
from plane.protocol.notifications import Event, EventKind

__all__ = ["BackendDetail"]

# A new state is shown at once; what has no event (leases, tokens) after this time.
REFRESH_INTERVAL_S = 10.0

log = structlog.get_logger("plane.controller")


class BackendDetail:
    """The pages of single backends of one controller's console."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        page = "/console/backends/{backend}"
        return (
            ConsoleRoute("GET", page, self._page, Role.READ),
            ConsoleRoute("GET", "/console/live/backends/{backend}", self._live, Role.READ),
            ConsoleRoute("GET", "/console/live/backends/{backend}/output", self._output, Role.READ),
            ConsoleRoute("POST", f"{page}/terminate", self._terminate, Role.CONNECT),
            ConsoleRoute("POST", f"{page}/revoke", self._revoke, Role.CONNECT),
            ConsoleRoute("POST", f"{page}/open", self._open, Role.CONNECT),
        )

    async def _page(self, request: web.Request, visitor: Visitor) -> web.Response:
        detail = await self._detail(request.match_info["backend"])
        usage = self._parts.context.metrics.of(detail.id)
        return self._parts.page(
            "backend.html",
            visitor,
            backend=detail,
            summary=await self._summary(detail, may_change=visitor.may_change),
            usage=None if usage is None else _sample(usage),
        )

    async def _live(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        detail = await self._detail(request.match_info["backend"])
        mailbox, bus = Mailbox(), self._parts.context.bus
        may_change = visitor.may_change

        async def render() -> Mapping[str, str]:
            return {"fragment": await self._summary(await self._detail(detail.id), may_change=may_change)}

        def subscribe(changed: Callable[[object], None]) -> AbstractContextManager[None]:
            return bus.subscribe_callback(changed, EventKind.BACKEND_STATE, detail.id)

        def on_metrics(event: Event) -> None:
            if (usage := decode_usage(event)) is not None:
                mailbox.put("usage", encode_event("usage", _sample(usage)))

        name = f"backend {detail.id} {may_change}"
        with (
            bus.subscribe_callback(on_metrics, EventKind.BACKEND_METRICS, detail.id),
            self._parts.views.watch(name, render, mailbox, subscribe, REFRESH_INTERVAL_S),
        ):
            return await self._parts.send_events(request, mailbox)

    async def _output(self, request: web.Request, _: Visitor) -> web.StreamResponse:
        async with self._parts.streams.ended_with_session(request, partial(self._parts.is_admitted, request)):
            return await stream_logs(request)

    async def _terminate(self, request: web.Request, visitor: Visitor) -> web.Response:
        kind = visitor.fields.get("kind")
        if kind is None or kind not in list(TerminationKind):
            raise ApiFailure(400, ApiErrorKind.OTHER, "kind must be soft or hard")
        if not await terminate(request, TerminationKind(kind)):
            return self._parts.renderer.notice("The backend has already ended.")
        return self._parts.renderer.notice("The drone was ordered to terminate the backend.")

    async def _revoke(self, request: web.Request, visitor: Visitor) -> web.Response:
        user = visitor.fields.get("user", "")
        count = await revoke(request, request.match_info["backend"], user)
        return self._parts.renderer.notice(f"{count} tokens of {user} were revoked; their connections close.")

    async def _open(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Connect like an application does, and respond with a page that leads to the backend's URL."""
        detail = await self._detail(request.match_info["backend"])
        if detail.key is None or not detail.key.name:
            raise ApiFailure(409, ApiErrorKind.OTHER, "Only a backend with a named key can be opened here")
        response = await connect(
            self._parts.context, ConnectRequest(key=detail.key, user=f"console:{visitor.name}", auth={})
        )
        if response.backend_id != detail.id:
            raise ApiFailure(409, ApiErrorKind.OTHER, "Another backend holds this key by now; open that one")
        log.info("backend opened in the console", backend=detail.id, name=visitor.name)
        return self._parts.page("open.html", visitor, address=response.url)

    async def _detail(self, backend_id: str) -> Detail:
        found = await inspection.inspect_backend(self._parts.context.db, backend_id)
        if found is None:
            raise backend_not_found()
        return found

    async def _summary(self, detail: Detail, *, may_change: bool) -> str:
        users = await console.users_of_backend(self._parts.context.db, detail.id) if may_change else []
        return self._parts.renderer.fragment(
            "backend_summary.html", backend=detail, may_change=may_change, users=users, now_s=time.time()
        )


def _sample(usage: BackendUsage) -> str:
    """Return one sample of the chart as JSON: seconds since 1970, bytes of memory, share of the machine's CPU."""
    cpu = usage.cpu_used / usage.sys_cpu if usage.sys_cpu > 0 else 0.0
    return codec.encode([usage.time.ms / 1000, usage.mem_used, round(cpu, 4)]).decode()
