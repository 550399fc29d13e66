"""`plane admin status`, `cluster-state` and `backend-status`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from plane.cli.admin.follow import follow
from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, console, duration, entry_text, fields, print_json, show, table

__all__ = ["backend_status", "cluster_state", "status"]


async def status(*, as_json: AsJson = False, controller: ControllerOptions = DEFAULT_CONTROLLER) -> None:
    """Show whether the controller and its database respond, and the version."""
    async with controller.client() as plane:
        found = await plane.controller_status()
    if as_json:
        print_json(found)
    else:
        show(fields([("Status", found.status), ("Version", found.version), ("Hash", found.hash)]))


async def cluster_state(
    cluster: str, /, *, as_json: AsJson = False, controller: ControllerOptions = DEFAULT_CONTROLLER
) -> None:
    """List the connected drones and proxies of a cluster.

    Example: plane admin cluster-state plane.example.com

    Parameters
    ----------
    cluster
        Name of the cluster, as HOST or HOST:PORT.
    """
    async with controller.client() as plane:
        found = await plane.cluster_state(cluster)
    if as_json:
        print_json(found)
        return
    out = console()
    if not (found.drones or found.proxies):
        out.print(f"No drone or proxy of cluster {cluster} is connected", markup=False)
        return
    rows: list[tuple[object, ...]] = [
        (
            drone.node.name.content,
            "draining" if drone.draining else "ready" if drone.ready else "not ready",
            drone.backend_count,
            duration(drone.last_heartbeat_age),
            drone.node.controller,
            drone.node.plane_version,
        )
        for drone in found.drones
    ]
    rows += [(each.name.content, "ready", None, None, each.controller, each.plane_version) for each in found.proxies]
    show(table(("NODE", "STATE", "BACKENDS", "HEARTBEAT", "CONTROLLER", "VERSION"), rows))


async def backend_status(
    backend: str,
    /,
    *,
    immediate: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Show the states of a backend with their times, past ones first, and follow it until it has terminated.

    Example: plane admin backend-status k6xqveyu5dhqvw

    Parameters
    ----------
    backend
        Name of the backend.
    immediate
        Print the present state and exit.
    """
    from plane.client import BackendStatus

    async with controller.client() as plane:
        if not immediate:
            await follow(plane, backend, BackendStatus.TERMINATED, as_json=as_json)
            return
        found = await plane.with_output(backend, await plane.status(backend))
    if as_json:
        print_json(found)
    else:
        console().print(entry_text(found))
