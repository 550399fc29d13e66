"""`plane db mark-backend-lost`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from plane.cli.db.known_drone import known_drone
from plane.cli.db.options import DatabaseOption
from plane.cli.output import console, key_text
from plane.protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from plane.database.pool import Database
    from plane.protocol.inspection import BackendSummary

__all__ = ["mark_backend_lost"]

# More than a drone runs.
LIMIT = 10_000


async def mark_backend_lost(
    *backends: str,
    drone: str | None = None,
    cluster: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    db: DatabaseOption,
) -> None:
    """Mark backends as terminated, reason lost. Asks for confirmation of each.

    Only for backends whose drone will never return. A key is free when its lease ends, at most a minute later: a
    backend that still runs has been killed by then. Controllers do it by themselves two minutes after a drone's last
    heartbeat.

    Example: plane db mark-backend-lost --drone dr-gone --cluster plane.example.com

    Parameters
    ----------
    backends
        Names of the backends.
    drone
        All backends of this drone, of --cluster.
    cluster
        Cluster of the drone.
    yes
        Do not ask for confirmation.
    """
    if (drone is None) != (cluster is None) or (drone is None) == (not backends):
        raise ConfigurationError("name either backends, or a drone with --drone and --cluster")
    from plane.cli.db.connection import open_database

    async with open_database(db) as database:
        chosen = await _chosen(database, backends, drone, cluster)
        if not chosen:
            console().print("No backend of this drone is live")
        for backend in chosen:
            if yes or _confirmed(backend):
                await _mark(database, backend)


async def _chosen(
    database: Database, names: tuple[str, ...], drone: str | None, cluster: str | None
) -> list[BackendSummary]:
    from plane.database import inspection

    if drone is not None and cluster is not None:
        await known_drone(database, cluster, drone)
        live = await inspection.list_backends(database, cluster, "live", None, None, LIMIT, drone=drone)
        return live.backends
    found: list[BackendSummary] = []
    for name in names:
        backend = await inspection.inspect_backend(database, name)
        if backend is None:
            raise ConfigurationError(f"there is no backend {name!r}; `plane db list-backends` lists all")
        found.append(backend)
    return found


def _confirmed(backend: BackendSummary) -> bool:
    key = key_text(backend.key)
    text = f"Backend {backend.id} is {backend.status} on {backend.drone}" + (f", key {key}" if key else "")
    console().print(f"{text}. Mark as lost? \\[y/N] ", end="")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _mark(database: Database, backend: BackendSummary) -> None:
    from plane.database.backends import StateChange, record_states
    from plane.protocol.backend_state import BackendStatus, Terminated, TerminationReason

    out = console()
    if backend.status is BackendStatus.TERMINATED:
        out.print(f"Backend {backend.id} has ended already")
        return
    state = Terminated(last_status=backend.status, reason=TerminationReason.LOST, message="marked as lost by hand")
    (changed,) = await record_states(database, [StateChange(backend.id, state, uncertain=True)])
    out.print(f"Backend {backend.id} {'is marked as lost' if changed else 'ended in the meantime'}")
