"""`plane admin list` and `inspect`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from plane.cli.admin.logs import line_text
from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import (
    AsJson,
    columns,
    console,
    duration,
    entry_text,
    fields,
    key_text,
    print_json,
    show,
    status_text,
)

if TYPE_CHECKING:
    from rich.table import Table

    from plane.client import AsyncPlane
    from plane.protocol.inspection import BackendDetail, BackendList

__all__ = ["backend_table", "inspect_backend", "list_backends"]

# Lines of output that `inspect` shows.
TAIL = 10


async def list_backends(
    *,
    cluster: str | None = None,
    status: str = "live",
    key: str | None = None,
    namespace: str | None = None,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 100,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """List backends, the latest change first.

    Example: plane admin list --status terminated --key my-document

    Parameters
    ----------
    cluster
        Only backends of this cluster.
    status
        Only backends with this status; live: not terminated; all: every one.
    key
        Only backends that were started for a key of this name.
    namespace
        Only backends that were started for a key of this namespace.
    limit
        Largest number of backends.
    """
    async with controller.client() as plane:
        found = await plane.backends(cluster=cluster, status=status, key=key, namespace=namespace, limit=limit)
    if as_json:
        print_json(found)
        return
    out = console()
    if not found.backends:
        out.print("No backends")
        return
    show(backend_table(found))
    if found.more:
        out.print("[dim]There are more: use --limit (up to 1000) or a filter.[/dim]")


def backend_table(found: BackendList) -> Table:
    """Return backends as a table of at most 80 columns, unless names are long.

    FOR is how long a backend has had its status, by this machine's clock. A pool or a cluster that all have in common
    is left out.
    """
    from rich.markup import escape

    now_ms = time.time() * 1000
    named: list[tuple[str, list[Any]]] = [
        ("BACKEND", [each.id for each in found.backends]),
        ("STATUS", [status_text(each.status) for each in found.backends]),
        ("FOR", [duration(max(0.0, now_ms - each.since.ms) / 1000) for each in found.backends]),
        ("QUIET", [duration(each.quiet_s) for each in found.backends]),
        ("KEY", [key_text(each.key) for each in found.backends]),
        ("DRONE", [each.drone for each in found.backends]),
        ("POOL", [escape(each.pool) or None for each in found.backends]),
        ("CLUSTER", [each.cluster for each in found.backends]),
    ]
    return columns(named, only_if_different=("POOL", "CLUSTER"))


async def inspect_backend(
    backend: str, /, *, as_json: AsJson = False, controller: ControllerOptions = DEFAULT_CONTROLLER
) -> None:
    """Show a backend: its states with times, key, drone, resource usage and last lines of output.

    Example: plane admin inspect k6xqveyu5dhqvw

    Parameters
    ----------
    backend
        Name of the backend.
    """
    async with controller.client() as plane:
        found = await plane.backend(backend)
        usage = None if as_json else await _usage(plane, backend)
        output = [] if as_json else await _output(plane, backend)
    if as_json:
        print_json(found)
        return
    out = console()
    show(fields([*_known(found), ("Memory", usage)]))
    out.print("\n[bold]States[/bold]")
    for entry in found.states:
        out.print(f"  {entry_text(entry)}")
    out.print("\n[bold]Output[/bold]")
    for line in output:
        out.print(f"  {line}", markup=False)


async def _usage(plane: AsyncPlane, backend: str) -> str | None:
    from plane.client import CallFailed

    try:
        usage = await plane.usage(backend)
    except CallFailed:
        # It has just begun, or has ended.
        return None
    return f"{usage.mem_used / 2**20:.0f} MiB"


async def _output(plane: AsyncPlane, backend: str) -> list[str]:
    from plane.client import CallFailed

    try:
        return [line_text(line, on_terminal=False) async for line in plane.logs(backend, tail=TAIL)]
    except CallFailed as error:
        # The rest is worth to be shown all the same.
        return [str(error)]


def _known(found: BackendDetail) -> list[tuple[str, object]]:
    from rich.markup import escape

    lease = None if found.lease_ends_in_s is None else f"ends in {duration(found.lease_ends_in_s)}"
    lifetime = None if found.lifetime_ends_in_s is None else f"ends in {duration(found.lifetime_ends_in_s)}"
    tag = escape(found.key.tag) if found.key is not None and found.key.tag else None
    return [
        ("Backend", found.id),
        ("Status", status_text(found.status)),
        ("Key", key_text(found.key)),
        ("Tag", tag),
        ("Lease", lease),
        ("Fencing token", found.fencing_token),
        ("Cluster", found.cluster),
        ("Drone", found.drone),
        ("Pool", escape(found.pool) or None),
        ("Address", found.address),
        ("Subdomain", found.subdomain),
        ("Quiet for", duration(found.quiet_s)),
        ("Idle limit", duration(found.max_idle_s)),
        ("Lifetime", lifetime),
        ("Tokens", "static" if found.static_token else found.tokens),
        ("Actions not done", found.pending_actions),
    ]
