"""The statements of connect requests, each for several requests at once; the SQL is in ``connect.sql``.

A request whose key is held needs one statement (`reuse_keys` or `look_up_keys`), a new key needs two (`look_up_keys`,
then `spawn_backends`). `plane.decisions.keys.connect_request` decides what follows from their results.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import msgspec

from plane.database.pool import Database, ReferencedRowDeleted, Transaction
from plane.database.statements import statements
from plane.decisions.keys.connect_request import HeldKey, KeyLookup
from plane.decisions.keys.drone_selection import CountedDrone, DroneCandidate
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, Scheduled
from plane.protocol.drone_messages import BackendAction
from plane.protocol.errors import PlaneError
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime
from plane.timing import DYNAMIC_TOKEN_LIFETIME_S, KEY_LEASE_S, UNHEALTHY_AFTER_S

__all__ = [
    "MAX_CANDIDATES",
    "BackendExists",
    "KeyLookups",
    "KeyQuery",
    "NewBackend",
    "TokenGrant",
    "look_up_keys",
    "reuse_keys",
    "spawn_backends",
]

# Random drones from which those for new backends are chosen until they are read again.
MAX_CANDIDATES = 100
# Counting stops here: a drone with very many backends must not cost more than others, and between two such drones the
# choice does not matter.
MAX_COUNTED_BACKENDS = 1_000

_SQL = statements("connect")
_SCHEDULED = codec.encode(Scheduled()).decode()


class BackendExists(PlaneError):
    """A backend with the requested id exists already, or existed."""


class TokenGrant(msgspec.Struct, frozen=True):
    """The dynamic token that is stored if the backend takes dynamic tokens, with its identity. ``auth`` is JSON."""

    token: str
    secret_token: str
    user: str | None
    auth: str

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "token", "secret_token", "auth")


@dataclass(frozen=True, slots=True)
class NewBackend:
    """Everything that is stored for a new backend. ``action`` is its spawn action, whose key is ``key``.

    ``leased_at``: the start of the key's lease, on the drone's clock.
    """

    backend_id: str
    cluster: str
    config: SpawnConfig
    key: AcquiredKey
    key_is_random: bool
    static_token: str | None = field(repr=False)
    action: BackendAction
    grant: TokenGrant
    leased_at: DroneTime


class KeyQuery(msgspec.Struct, frozen=True):
    """The first query of a connect request. ``cluster`` None: the request cannot spawn, so no drone is needed."""

    key: KeyConfig
    grant: TokenGrant
    cluster: str | None
    pool: str
    best_of: int


class KeyLookups(NamedTuple):
    """Result of `look_up_keys`: one lookup per query, and drones of each cluster and pool, in random order."""

    keys: list[KeyLookup]
    candidates: dict[tuple[str, str], list[CountedDrone]]


async def reuse_keys(db: Database | Transaction, queries: Sequence[KeyQuery]) -> list[KeyLookup | None]:
    """Return the live holder of each key, and store its token if the tag matches; None for a key without a live holder.

    Costs less than `look_up_keys`, which finds everything that a request may need.
    """
    try:
        rows = await db.fetch(_SQL["reuse_keys"], *_keys_and_grants(queries), DYNAMIC_TOKEN_LIFETIME_S)
    except ReferencedRowDeleted:
        # One of the holders ended, and was deleted before its token was stored.
        return [None] * len(queries)
    found: list[KeyLookup | None] = [None] * len(queries)
    for row in rows:
        found[row["place"] - 1] = KeyLookup(_held(row, live=True))
    return found


async def look_up_keys(
    db: Database | Transaction, queries: Sequence[KeyQuery], known: Container[tuple[str, str]] = ()
) -> KeyLookups:
    """Return each key's holder, and the drones that could spawn for keys without a live one.

    A live holder whose tag matches gets the query's token. Drones of ``known`` clusters and pools are not read.
    """
    wanted = {(q.cluster, q.pool): 0 for q in queries if q.cluster is not None and (q.cluster, q.pool) not in known}
    places = {pair: place for place, pair in enumerate(wanted, 1)}
    args = (
        *_keys_and_grants(queries),
        DYNAMIC_TOKEN_LIFETIME_S,
        [cluster for cluster, _ in places],
        [pool for _, pool in places],
        [None if q.cluster is None else places.get((q.cluster, q.pool)) for q in queries],
        MAX_CANDIDATES,
        UNHEALTHY_AFTER_S,
        MAX_COUNTED_BACKENDS,
    )
    try:
        rows = await db.fetch(_SQL["look_up_keys"], *args)
    except ReferencedRowDeleted:
        # A holder that ended was deleted before its token was stored. It no longer holds the key.
        rows = await db.fetch(_SQL["look_up_keys"], *args)
    keys = [
        KeyLookup(
            held=None if row["id"] is None else _held(row, live=row["live"]),
            removed=row["removed"],
            may_grant=row["may_grant"],
            lease_left_s=row["lease_left_s"],
            db_now_ms=row["db_now"],
            last_fencing_token=row["last_fencing_token"],
        )
        for row in rows
    ]
    return KeyLookups(keys, _candidates(rows[0]["drones"], list(places)))


def _keys_and_grants(queries: Sequence[KeyQuery]) -> tuple[list[str | None], ...]:
    """Return the arrays $1 to $7 of both statements for keys."""
    return (
        [q.key.namespace for q in queries],
        [q.key.name for q in queries],
        [q.key.tag for q in queries],
        [q.grant.token for q in queries],
        [q.grant.secret_token for q in queries],
        [q.grant.user for q in queries],
        [q.grant.auth for q in queries],
    )


def _candidates(drones: str | None, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[CountedDrone]]:
    found: dict[tuple[str, str], list[CountedDrone]] = {pair: [] for pair in wanted}
    for drone in codec.decode(drones, list) if drones else []:
        candidate = DroneCandidate(drone["id"], drone["name"], DroneTime(drone["local_time"]), drone["clock"])
        found[wanted[drone["wanted"] - 1]].append(CountedDrone(candidate, drone["backend_count"]))
    return found


def _held(row: asyncpg.Record, *, live: bool) -> HeldKey:
    return HeldKey(
        backend_id=row["id"],
        tag=row["tag"],
        live=live,
        cluster=row["cluster"],
        status=BackendStatus(row["last_status"]),
        static_token=row["static_token"],
        subdomain=row["subdomain"],
    )


async def spawn_backends(db: Database | Transaction, wanted: Sequence[NewBackend]) -> list[bool]:
    """Store backends with their keys, states, spawn actions and tokens, and notify the drones' controllers.

    Returns false for a backend that was not stored: another connect (of the same batch, perhaps) took the key
    concurrently, no keys are granted now, or its drone drains or has connected again.

    Raises:
        BackendExists: a backend with a requested id exists; nothing was stored.
    """
    first = {(new.key.key.namespace, new.key.key.name): new for new in reversed(wanted)}
    unique = [first[key] for key in sorted(first)]
    try:
        rows = await db.fetch(
            _SQL["spawn_backends"],
            [new.backend_id for new in unique],
            [new.cluster for new in unique],
            [new.action.drone_id for new in unique],
            [new.config.lifetime_limit_seconds for new in unique],
            [new.config.max_idle_seconds for new in unique],
            [new.key.key.namespace for new in unique],
            [new.key.key.name for new in unique],
            [new.key.key.tag for new in unique],
            [new.key.token for new in unique],
            [new.key_is_random for new in unique],
            [new.static_token for new in unique],
            [new.config.subdomain for new in unique],
            [new.action.action_id for new in unique],
            [codec.encode(new.action).decode() for new in unique],
            [new.grant.token for new in unique],
            [new.grant.secret_token for new in unique],
            [new.grant.user for new in unique],
            [new.grant.auth for new in unique],
            KEY_LEASE_S,
            BackendStatus.SCHEDULED.number,
            _SCHEDULED,
            DYNAMIC_TOKEN_LIFETIME_S,
            [new.leased_at.ms for new in unique],
            [new.config.rewrite_prefix is True for new in unique],
            [new.config.token_in_cookie is True for new in unique],
        )
    except asyncpg.UniqueViolationError as error:
        raise BackendExists from error
    stored = {row["backend_id"] for row in rows}
    return [first[new.key.key.namespace, new.key.key.name] is new and new.backend_id in stored for new in wanted]
