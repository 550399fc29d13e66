"""The two trips of a connect request. Statements: ``connect.sql``.

What is done with what they say is decided in `plane.decisions.connect_request`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from plane.database.pool import Database
from plane.database.statements import statements
from plane.decisions.connect_request import HeldKey, KeyLookup
from plane.decisions.drone_choice import DroneCandidate
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, Scheduled
from plane.protocol.drone_messages import BackendAction
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime
from plane.timing import DYNAMIC_TOKEN_LIFETIME_S, KEY_LEASE_S, UNHEALTHY_AFTER_S

__all__ = ["BackendExists", "KeyTaken", "NewBackend", "TokenGrant", "look_up_key", "spawn_backend"]

_SQL = statements("connect")


class KeyTaken(Exception):
    """Another connect acquired the key meanwhile."""


class BackendExists(Exception):
    """A backend with the wanted id exists already, or existed."""


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """The dynamic token that is given if one is to be given, and what it carries. ``auth`` is JSON."""

    token: str
    secret_token: str
    user: str | None
    auth: str


@dataclass(frozen=True, slots=True)
class NewBackend:
    """All that is stored for a new backend. ``action`` is its spawn action, whose key is ``key``."""

    backend_id: str
    cluster: str
    config: SpawnConfig
    key: AcquiredKey
    key_is_random: bool
    static_token: str | None
    action: BackendAction


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is known of the key, the database's time in ms, and the last fencing token given for the key."""

    key: KeyLookup
    db_now_ms: int
    last_fencing_token: int | None


async def look_up_key(
    db: Database, key: KeyConfig, grant: TokenGrant, cluster: str | None, pool: str, best_of: int
) -> Lookup:
    """First trip: the holder (given a token if it is live and the tag matches), or drones that could spawn.

    ``cluster`` None: the request cannot spawn, no drones are looked for.
    """
    row = await db.fetchrow(
        _SQL["look_up_key"],
        key.namespace,
        key.name,
        key.tag,
        grant.token,
        grant.user,
        grant.auth,
        cluster,
        pool,
        best_of,
        DYNAMIC_TOKEN_LIFETIME_S,
        grant.secret_token,
        UNHEALTHY_AFTER_S,
    )
    assert row is not None
    drones: list[dict[str, Any]] = codec.decode(row["drones"], list) if row["drones"] else []
    return Lookup(
        key=KeyLookup(
            held=None if row["id"] is None else _held(row),
            removed=row["removed"],
            drones=[
                DroneCandidate(
                    drone_id=drone["id"],
                    name=drone["name"],
                    local_time=DroneTime(drone["local_time"]),
                    backend_count=drone["backend_count"],
                )
                for drone in drones
            ],
        ),
        db_now_ms=row["db_now"],
        last_fencing_token=row["last_fencing_token"],
    )


def _held(row: asyncpg.Record) -> HeldKey:
    return HeldKey(
        backend_id=row["id"],
        tag=row["tag"],
        live=row["live"],
        cluster=row["cluster"],
        status=BackendStatus(row["last_status"]),
        static_token=row["static_token"],
        subdomain=row["subdomain"],
    )


async def spawn_backend(db: Database, new: NewBackend, grant: TokenGrant) -> None:
    """Second trip: store the backend, its key, state, action and token, and tell the drone's controller.

    Raises:
        KeyTaken, BackendExists: nothing was stored.
    """
    key = new.key.key
    try:
        row = await db.fetchrow(
            _SQL["spawn_backend"],
            new.backend_id,
            new.cluster,
            new.action.drone_id,
            new.config.lifetime_limit_seconds,
            new.config.max_idle_seconds,
            codec.encode(Scheduled()).decode(),
            key.namespace,
            key.name,
            key.tag,
            new.key.token,
            not new.key_is_random,
            new.static_token,
            new.config.subdomain,
            KEY_LEASE_S,
            new.action.action_id,
            codec.encode(new.action).decode(),
            grant.token,
            grant.user,
            grant.auth,
            BackendStatus.SCHEDULED.number,
            DYNAMIC_TOKEN_LIFETIME_S,
            grant.secret_token,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "idx_namespace_name":
            raise KeyTaken from error
        raise BackendExists from error
    if row is None:
        raise KeyTaken
