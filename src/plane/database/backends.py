"""Backends: states, keepalives, routes and metrics. The SQL is in ``backends.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from msgspec import UNSET

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.decisions.backends.idle_sweep import SweepCandidate
from plane.protocol import codec
from plane.protocol.backend_state import BackendState, BackendStatus, Ready, Waiting, state_from_json
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.proxy_messages import RouteInfo
from plane.protocol.times import DbTime
from plane.timing import MIN_IDLE_S, SWEEP_INTERVAL_S

__all__ = [
    "RouteRow",
    "StateChange",
    "StateRow",
    "backends_to_sweep",
    "history",
    "keep_alive",
    "publish_metrics",
    "record_states",
    "routes",
    "state_now",
]

_SQL = statements("backends")


@dataclass(frozen=True, slots=True)
class StateRow:
    """A state, and when the database stored it."""

    state: BackendState
    time: DbTime


@dataclass(frozen=True, slots=True)
class RouteRow:
    """The backend of a token. ``route`` is None unless the backend is ready."""

    backend_id: str
    status_number: int
    route: RouteInfo | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A new state of a backend.

    Attributes:
        uncertain: it says that the backend has ended, but its process may run until its lease ends.
    """

    backend_id: str
    state: BackendState
    uncertain: bool = False


async def record_states(db: Database | Transaction, changes: Sequence[StateChange]) -> list[bool]:
    """Store states and emit their events. False for an unknown backend, or if its status would not rise."""
    rows = await db.fetch(
        _SQL["record_states"],
        [change.backend_id for change in changes],
        [str(change.state.status) for change in changes],
        [change.state.status.number for change in changes],
        [change.state.address if isinstance(change.state, Waiting | Ready) else None for change in changes],
        [codec.encode(change.state).decode() for change in changes],
        [change.uncertain for change in changes],
    )
    risen = {row["place"] for row in rows}
    return [place in risen for place in range(1, len(changes) + 1)]


async def state_now(db: Database, backend_id: str) -> tuple[StateRow, int] | None:
    """Return the current state and the drone's id; None for an unknown backend."""
    row = await db.fetchrow(_SQL["backend_state_now"], backend_id)
    if row is None:
        return None
    return StateRow(state_from_json(row["state"]), DbTime(row["time"])), row["drone_id"]


async def history(db: Database, backend_id: str) -> list[StateRow]:
    """Return all states, oldest first."""
    rows = await db.fetch(_SQL["backend_state_history"], backend_id)
    return [StateRow(state_from_json(row["state"]), DbTime(row["time"])) for row in rows]


async def keep_alive(db: Database, backend_ids: Sequence[str]) -> list[bool]:
    """Store that the backends are in use. False for a backend that is unknown or terminated."""
    alive = {row["id"] for row in await db.fetch(_SQL["keep_alive"], backend_ids)}
    return [backend_id in alive for backend_id in backend_ids]


async def backends_to_sweep(db: Database, drone_ids: Sequence[int]) -> list[SweepCandidate]:
    """Return the drones' backends that exceed their idle time or lifetime now or within a sweep interval."""
    rows = await db.fetch(
        _SQL["backends_to_sweep"],
        drone_ids,
        BackendStatus.TERMINATING.number,
        SWEEP_INTERVAL_S,
        MIN_IDLE_S,
    )
    return [SweepCandidate(row["id"], row["drone_id"], row["due_in_s"]) for row in rows]


async def routes(db: Database | Transaction, tokens: Sequence[str]) -> list[RouteRow | None]:
    """Return the backends of connection tokens; None for a token that is unknown or expired."""
    found: list[RouteRow | None] = [None] * len(tokens)
    for row in await db.fetch(_SQL["routes_of_tokens"], tokens):
        found[row["place"] - 1] = _route(row)
    return found


def _route(row: asyncpg.Record) -> RouteRow:
    number = row["last_status_number"] or 0
    info = None
    if number == BackendStatus.READY.number and row["cluster_address"] is not None:
        info = RouteInfo(
            backend_id=row["id"],
            address=row["cluster_address"],
            secret_token=row["secret_token"],
            cluster=row["cluster"],
            user=row["username"],
            # As the database wrote it: the proxy decodes it.
            user_data=None if row["auth"] is None else codec.Raw(row["auth"].encode()),
            subdomain=row["subdomain"],
            expires_in_ms=UNSET if row["expires_in_ms"] is None else row["expires_in_ms"],
            rewrite_prefix=row["plane_rewrite_prefix"] or UNSET,
            token_in_cookie=row["plane_token_in_cookie"] or UNSET,
        )
    return RouteRow(row["id"], number, info)


async def publish_metrics(db: Database, metrics: Sequence[BackendMetrics]) -> list[None]:
    """Publish metrics on their notification channel."""
    await db.fetch(
        _SQL["publish_metrics"],
        [each.backend_id for each in metrics],
        [codec.encode(each).decode() for each in metrics],
    )
    return [None] * len(metrics)
