"""Queries of operators about backends and nodes. The SQL is in ``inspection.sql``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from plane.database import backends
from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, status_entry
from plane.protocol.inspection import BackendDetail, BackendList, BackendSummary, NodeList, NodeSummary
from plane.protocol.keys import KeyConfig
from plane.protocol.names import NodeKind
from plane.protocol.times import DbTime
from plane.timing import MIN_IDLE_S, SWEEP_INTERVAL_S

__all__ = [
    "SEARCHED_TERMINATED",
    "TerminationCandidate",
    "drone_id",
    "inspect_backend",
    "list_backends",
    "list_nodes",
    "termination_candidates",
]

# Terminated backends that a search reads, each with its spawn action: 0.1 s.
SEARCHED_TERMINATED = 10_000

_SQL = statements("inspection")


@dataclass(frozen=True, slots=True)
class TerminationCandidate:
    """A backend that exceeds its idle time or lifetime, or is about to.

    Attributes:
        due_in_s: seconds until then; negative: it is overdue.
        ordered_s: seconds since the first order to terminate it; None: there was none.
        acknowledged: its drone has applied such an order.
    """

    backend: str
    status: BackendStatus
    due_in_s: float
    ordered_s: float | None
    acknowledged: bool


async def list_backends(
    db: Database,
    cluster: str | None,
    status: str,
    key: str | None,
    namespace: str | None,
    limit: int,
    *,
    drone: str | None = None,
) -> BackendList:
    """Return backends by cluster, name and namespace of the key, and name of the drone (None: any).

    ``status``: a status, "live" for all but terminated, or "all". Filters are applied to the `SEARCHED_TERMINATED`
    latest of the terminated ones; ``more`` of the result is true if there are others.
    """
    is_filtered = any(value is not None for value in (cluster, key, namespace, drone))
    searched = SEARCHED_TERMINATED if is_filtered else limit + 1
    rows = await db.fetch(_SQL["list_backends"], cluster, status, key, namespace, limit + 1, drone, searched)
    more = len(rows) > limit
    if not more and is_filtered and status in ("all", BackendStatus.TERMINATED):
        more = bool(await db.fetch(_SQL["terminated_after"], searched))
    return BackendList([BackendSummary(**_summary(row)) for row in rows[:limit]], more=more)


async def inspect_backend(db: Database, backend_id: str) -> BackendDetail | None:
    """Return everything that is stored of a backend; None for an unknown backend."""
    row = await db.fetchrow(_SQL["inspect_backend"], backend_id)
    if row is None:
        return None
    states = [status_entry(past.state, past.time) for past in await backends.history(db, backend_id)]
    own = ("address", "lease_ends_in_s", "fencing_token", "lifetime_ends_in_s", "max_idle_s", "subdomain")
    counts = ("static_token", "tokens", "pending_actions")
    return BackendDetail(states=states, **_summary(row), **{name: row[name] for name in own + counts})


async def list_nodes(db: Database, cluster: str | None, *, include_disconnected: bool, limit: int) -> NodeList:
    """Return the nodes of a cluster (None: of all clusters, and DNS servers)."""
    rows = await db.fetch(_SQL["list_nodes"], cluster, include_disconnected, limit + 1)
    return NodeList([_node(row) for row in rows[:limit]], more=len(rows) > limit)


async def drone_id(db: Database, cluster: str, drone: str) -> int | None:
    """Return the node id of a drone; None for an unknown drone."""
    row = await db.fetchrow(_SQL["drone_id"], cluster, drone)
    return None if row is None else int(row["id"])


async def termination_candidates(db: Database, drone_id: int) -> list[TerminationCandidate]:
    """Return the drone's backends that a sweep terminates now or within its interval, also those already ordered to."""
    rows = await db.fetch(_SQL["termination_candidates"], drone_id, SWEEP_INTERVAL_S, MIN_IDLE_S)
    return [
        TerminationCandidate(
            backend=row["id"],
            status=BackendStatus(row["last_status"]),
            due_in_s=row["due_in_s"],
            ordered_s=row["ordered_s"],
            acknowledged=row["acknowledged"],
        )
        for row in rows
    ]


def _node(row: asyncpg.Record) -> NodeSummary:
    known = {name: row[name] for name in NodeSummary.__struct_fields__}
    known["kind"] = NodeKind(row["kind"])
    if row["controller"] is None:
        known["connected_s"] = None
    return NodeSummary(**known)


def _summary(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["id"],
        "cluster": row["cluster"],
        "status": BackendStatus(row["status"]),
        "since": DbTime(row["since"]),
        "drone": row["drone"],
        "pool": row["pool"],
        "quiet_s": row["quiet_s"],
        "key": None if row["key"] is None else codec.decode(row["key"], KeyConfig),
    }
