"""The overview: clusters, counts by status, starts, ends and failures of the last hour, and pending orders."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from plane.controller.console.parts import ConsoleParts
from plane.controller.console.streams import Mailbox
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.database import console, inspection
from plane.decisions.access import Role
from plane.decisions.console.activity import Minute
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.protocol.inspection import NodeSummary
from plane.protocol.names import NodeKind

__all__ = ["Overview"]

MAX_NODES = 1000


@dataclass(slots=True)
class _Cluster:
    """One row of the table."""

    name: str
    by_status: dict[BackendStatus, int] = field(default_factory=lambda: defaultdict(int))
    drones: int = 0
    draining: int = 0
    proxies: int = 0

    @property
    def ready(self) -> int:
        return self.by_status[BackendStatus.READY]

    @property
    def starting(self) -> int:
        return sum(self.by_status[status] for status in BackendStatus if status.number < BackendStatus.READY.number)

    @property
    def ending(self) -> int:
        return sum(self.by_status[status] for status in BackendStatus if status.number > BackendStatus.READY.number)


class Overview:
    """The pages of one controller's overview."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        return (
            ConsoleRoute("GET", "/console", self._page, Role.READ),
            ConsoleRoute("GET", "/console/", self._page, Role.READ),
            ConsoleRoute("GET", "/console/live/overview", self._live, Role.READ),
        )

    async def _page(self, _: web.Request, visitor: Visitor) -> web.Response:
        parts = await self._render()
        return self._parts.page("overview.html", visitor, summary=parts["fragment"], activity=parts["activity"])

    async def _live(self, request: web.Request, _: Visitor) -> web.StreamResponse:
        mailbox = Mailbox()
        with self._parts.views.watch("overview", self._render, mailbox):
            return await self._parts.send_events(request, mailbox)

    async def _render(self) -> Mapping[str, str]:
        db = self._parts.context.db
        counts = await console.status_counts(db)
        pending = await console.pending_actions(db)
        nodes = await inspection.list_nodes(db, None, include_disconnected=False, limit=MAX_NODES)
        hour = self._parts.activity.last_hour(time.time())
        ends, failures = (sum(getattr(minute, name) for _, minute in hour) for name in ("ends", "failures"))
        fragment = self._parts.renderer.fragment(
            "overview_summary.html",
            clusters=_clusters(counts, nodes.nodes),
            pending=pending,
            starts=sum(minute.starts for _, minute in hour),
            ends=ends,
            failures=failures,
            error_share=failures / ends if ends else 0.0,
            since=max(self._parts.activity.since_minute * 60, hour[0][0]),
        )
        return {"fragment": fragment, "activity": _series(hour)}


def _clusters(counts: list[console.StatusCount], nodes: list[NodeSummary]) -> list[_Cluster]:
    clusters: dict[str, _Cluster] = {}
    for count in counts:
        clusters.setdefault(count.cluster, _Cluster(count.cluster)).by_status[count.status] = count.number
    for node in nodes:
        if node.cluster is None:
            continue
        cluster = clusters.setdefault(node.cluster, _Cluster(node.cluster))
        cluster.drones += node.kind is NodeKind.DRONE
        cluster.draining += node.draining is True
        cluster.proxies += node.kind is NodeKind.PROXY
    return sorted(clusters.values(), key=lambda cluster: cluster.name)


def _series(hour: list[tuple[int, Minute]]) -> str:
    """Return the chart's columns as JSON: times, starts, ends and failures."""
    columns = [
        [at for at, _ in hour],
        *([getattr(m, name) for _, m in hour] for name in ("starts", "ends", "failures")),
    ]
    return codec.encode(columns).decode()
