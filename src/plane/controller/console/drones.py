"""The page of nodes: drones with their capacity, drain and undrain; proxies and DNS servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aiohttp import web

from plane.controller.api.cluster import set_draining
from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.database import inspection
from plane.decisions.access import Role
from plane.protocol.inspection import NodeSummary
from plane.protocol.names import NodeKind
from plane.timing import HEARTBEAT_INTERVAL_S

__all__ = ["Drones"]

MAX_NODES = 1000
# A drone that has missed two heartbeats is late.
LATE_HEARTBEAT_S = 3 * HEARTBEAT_INTERVAL_S


class Drones:
    """The pages of one controller's nodes."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        drone = "/console/drones/{cluster}/{drone}"
        return (
            ConsoleRoute("GET", "/console/drones", self._page, Role.READ),
            ConsoleRoute("GET", "/console/live/drones", self._live, Role.READ),
            ConsoleRoute("POST", f"{drone}/drain", partial(self._set_draining, draining=True), Role.ADMIN),
            ConsoleRoute("POST", f"{drone}/undrain", partial(self._set_draining, draining=False), Role.ADMIN),
        )

    async def _page(self, request: web.Request, visitor: Visitor) -> web.Response:
        include_all = "all" in request.query
        parts = await self._render(include_all=include_all, may_administer=visitor.may_administer)
        return self._parts.page("drones.html", visitor, table=parts["fragment"], include_all=include_all)

    async def _live(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        include_all = "all" in request.query
        render = partial(self._render, include_all=include_all, may_administer=visitor.may_administer)
        mailbox = Mailbox()
        with self._parts.views.watch(f"drones {include_all} {visitor.may_administer}", render, mailbox):
            return await self._parts.send_events(request, mailbox)

    async def _render(self, *, include_all: bool, may_administer: bool) -> Mapping[str, str]:
        found = await inspection.list_nodes(self._parts.context.db, None, include_disconnected=True, limit=MAX_NODES)
        shown = [node for node in found.nodes if include_all or node.controller is not None or node.backends]
        fragment = self._parts.renderer.fragment(
            "drones_tables.html",
            drones=[node for node in shown if node.kind is NodeKind.DRONE],
            others=[node for node in shown if node.kind is not NodeKind.DRONE],
            hidden=len(found.nodes) - len(shown),
            more=found.more,
            state_of=_state,
            may_administer=may_administer,
        )
        return {"fragment": fragment}

    async def _set_draining(self, request: web.Request, _: Visitor, *, draining: bool) -> web.Response:
        drone = request.match_info["drone"]
        await set_draining(request, draining=draining)
        return self._parts.renderer.notice(
            f"{drone} gets no more backends; its backends continue." if draining else f"{drone} gets backends again."
        )


def _state(node: NodeSummary) -> str:
    """Return what an operator needs to know of a node, in one word."""
    if node.controller is None:
        return "disconnected"
    if node.kind is not NodeKind.DRONE:
        return "connected"
    if node.draining:
        return "draining"
    if not node.ready:
        return "stopping"
    return "late" if (node.heartbeat_age_s or 0) > LATE_HEARTBEAT_S else "ready"
