"""`plane admin top`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from plane.cli.admin.backends import backend_table
from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import columns, console, duration, show

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from plane.client import AsyncPlane
    from plane.protocol.inspection import NodeList

__all__ = ["top"]

REQUESTS_METRIC = "plane_http_requests_total"
# Lines that are not those of backends or nodes.
OTHER_LINES = 8


async def top(
    *,
    cluster: str | None = None,
    interval: Annotated[float, Parameter(validator=validators.Number(gte=0.2, lte=3600))] = 2.0,
    once: Annotated[bool, Parameter(negative="")] = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Watch nodes and backends live; Ctrl-C ends it. Without a terminal, the present state is printed once.

    Parameters
    ----------
    cluster
        Only this cluster.
    interval
        Seconds between two updates.
    once
        Print the present state and exit.
    """
    import asyncio

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from plane.client import CallFailed

    out = console()
    rate = _RequestRate()
    async with controller.client() as plane:
        if once or not out.is_terminal:
            show(await _frame(plane, rate, cluster, out.height if out.is_terminal else 1000))
            return
        frame = await _frame(plane, rate, cluster, out.height)
        with Live(frame, console=out, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                try:
                    frame = await _frame(plane, rate, cluster, out.height)
                except CallFailed as error:
                    # The last known state stays visible.
                    live.update(Group(frame, Text(f"\n{error}", style="red")), refresh=True)
                else:
                    live.update(frame, refresh=True)


class _RequestRate:
    """Requests per second of the controller between two updates."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def update(self, metrics: str, now: float) -> float | None:
        """Return the rate since the last update, or None at the first one."""
        from prometheus_client.parser import text_string_to_metric_families

        total = sum(
            sample.value
            for family in text_string_to_metric_families(metrics)
            for sample in family.samples
            if sample.name == REQUESTS_METRIC
        )
        last, self._last = self._last, (total, now)
        return None if last is None or now <= last[1] else max(0.0, total - last[0]) / (now - last[1])


async def _frame(plane: AsyncPlane, rate: _RequestRate, cluster: str | None, height: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    nodes = await plane.nodes(cluster=cluster, limit=1000)
    room = max(5, height - len(nodes.nodes) - OTHER_LINES)
    backends = await plane.backends(cluster=cluster, limit=min(room, 1000))
    live = sum(node.backends or 0 for node in nodes.nodes)
    where = f"cluster {cluster}" if cluster else "all clusters"
    per_second = rate.update(await plane.controller_metrics(), time.monotonic())
    requests = "" if per_second is None else f"; {per_second:.1f} requests a second at this controller"
    count = f"{live} backend{'' if live == 1 else 's'}, {len(nodes.nodes)} connected nodes"
    head = Text.assemble((count, "bold"), f" of {where}{requests}\n")
    parts: list[Table | Text] = [head, _node_table(nodes), Text("")]
    parts.append(backend_table(backends) if backends.backends else Text("No backend runs", style="dim"))
    return Group(*parts)


def _node_table(found: NodeList) -> Table:
    """Return nodes as a table of at most 80 columns, unless their pools or clusters differ."""
    from rich.markup import escape

    nodes = found.nodes
    return columns(
        [
            ("NODE", [node.name for node in nodes]),
            ("STATE", [_state(draining=node.draining, ready=node.ready) for node in nodes]),
            ("BACKENDS", [node.backends for node in nodes]),
            ("HEARTBEAT", [duration(node.heartbeat_age_s) for node in nodes]),
            ("POOL", [escape(node.pool) if node.pool else None for node in nodes]),
            ("CLUSTER", [node.cluster for node in nodes]),
            ("CONNECTED", [duration(node.connected_s) for node in nodes]),
            ("VERSION", [node.plane_version for node in nodes]),
        ],
        only_if_different=("POOL", "CLUSTER"),
    )


def _state(*, draining: bool | None, ready: bool | None) -> str:
    if draining:
        return "[yellow]draining[/yellow]"
    return "[red]not ready[/red]" if ready is False else "[green]ready[/green]"
