"""`plane db list-nodes`, `list-backends` and `termination-candidates`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from plane.cli.admin.backends import backend_table
from plane.cli.admin.options import ClusterOfDroneOption, DroneOption
from plane.cli.db.known_drone import known_drone
from plane.cli.db.options import DatabaseOption
from plane.cli.output import AsJson, console, duration, print_json, show, status_text, table

if TYPE_CHECKING:
    from plane.database.inspection import TerminationCandidate

__all__ = ["list_backends", "list_nodes", "termination_candidates"]

LIMIT = 10_000


async def list_nodes(
    *,
    db: DatabaseOption,
    all: Annotated[bool, Parameter(negative="")] = False,
    cluster: str | None = None,
    as_json: AsJson = False,
) -> None:
    """List the nodes that are connected to a controller.

    Example: plane db list-nodes --all --cluster plane.example.com

    Parameters
    ----------
    all
        Also nodes that are not connected.
    cluster
        Only rows of this cluster.
    """
    from plane.cli.db.connection import open_database
    from plane.database import inspection

    async with open_database(db) as database:
        found = await inspection.list_nodes(database, cluster, include_disconnected=all, limit=LIMIT)
    if as_json:
        print_json(found)
        return
    show(
        table(
            ("NODE", "KIND", "CLUSTER", "CONTROLLER", "CONNECTED", "IP", "VERSION", "HASH"),
            (
                (
                    each.name,
                    each.kind,
                    each.cluster,
                    each.controller,
                    duration(each.connected_s),
                    each.ip,
                    each.plane_version,
                    each.plane_hash,
                )
                for each in found.nodes
            ),
        )
    )


async def list_backends(
    *,
    db: DatabaseOption,
    cluster: str | None = None,
    all: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """List backends that are not terminated, the latest change first.

    Parameters
    ----------
    cluster
        Only rows of this cluster.
    all
        Also terminated ones.
    """
    from plane.cli.db.connection import open_database
    from plane.database import inspection

    async with open_database(db) as database:
        status = "all" if all else "live"
        found = await inspection.list_backends(database, cluster, status, None, None, LIMIT)
    if as_json:
        print_json(found)
    else:
        show(backend_table(found))


async def termination_candidates(
    *, db: DatabaseOption, cluster: ClusterOfDroneOption, drone: DroneOption, as_json: AsJson = False
) -> None:
    """List backends of a drone that are idle for too long or past their lifetime, or will be within seconds.

    Backends with a pending action to terminate are listed too: ORDER shows its age.

    Example: plane db termination-candidates --cluster plane.example.com --drone dr-one
    """
    from plane.cli.db.connection import open_database
    from plane.database import inspection

    async with open_database(db) as database:
        node_id = await known_drone(database, cluster, drone)
        found = await inspection.termination_candidates(database, node_id)
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("No backend of this drone is to be terminated")
        return
    rows = [(each.backend, status_text(each.status), duration(each.due_in_s), _order(each)) for each in found]
    show(table(("BACKEND", "STATUS", "DUE IN", "ORDER"), rows))


def _order(candidate: TerminationCandidate) -> str | None:
    if candidate.ordered_s is None:
        return None
    return f"{duration(candidate.ordered_s)} ago, {'' if candidate.acknowledged else 'not '}acknowledged"
