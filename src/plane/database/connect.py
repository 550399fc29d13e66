"""The two trips of connect requests, of several at a time. Statements: ``connect.sql``.

What is done with what they say is decided in `plane.decisions.keys.connect_request`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import msgspec

from plane.database.pool import Database, RowGone, Transaction
from plane.database.statements import statements
from plane.decisions.keys.connect_request import HeldKey, KeyLookup
from plane.decisions.keys.drone_selection import BackendCounts, DroneCandidate, DroneHand
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, Scheduled
from plane.protocol.drone_messages import BackendAction
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime
from plane.timing import DYNAMIC_TOKEN_LIFETIME_S, KEY_LEASE_S, UNHEALTHY_AFTER_S

__all__ = [
    "BackendExists",
    "Lookup",
    "NewBackend",
    "Question",
    "TokenGrant",
    "look_up_keys",
    "reuse_keys",
    "spawn_backends",
]

# Counting stops here, so that a drone with very many backends costs no more than others; of two such ones, either
# is as good.
COUNTED_BACKENDS = 1_000

_SQL = statements("connect")
_SCHEDULED = codec.encode(Scheduled()).decode()


class BackendExists(Exception):
    """A backend with the wanted id exists already, or existed."""


class TokenGrant(msgspec.Struct, frozen=True):
    """The dynamic token that is given if one is to be given, and what it carries. ``auth`` is JSON."""

    token: str
    secret_token: str
    user: str | None
    auth: str

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "token", "secret_token", "auth")


@dataclass(frozen=True, slots=True)
class NewBackend:
    """All that is stored for a new backend. ``action`` is its spawn action, whose key is ``key``.

    ``leased_at``: when the key's lease begins, on the drone's clock.
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


class Lookup(msgspec.Struct, frozen=True):
    """What is known of the key.

    ``lease_left_s``: until its holder's lease ends; None without one. The rest is for a new holder, and says nothing
    where there is one: the database's time in ms, and the last fencing token given for the key.
    """

    key: KeyLookup
    lease_left_s: float | None = None
    db_now_ms: int = 0
    last_fencing_token: int | None = None


class Question(msgspec.Struct, frozen=True):
    """A connect request's first trip. ``cluster`` None: the request cannot spawn, no drones are looked for."""

    key: KeyConfig
    grant: TokenGrant
    cluster: str | None
    pool: str
    best_of: int


async def reuse_keys(db: Database | Transaction, questions: Sequence[Question]) -> list[Lookup | None]:
    """Only trip, for keys that are held: each one's holder, given a token if the tag matches; None: it has none now.

    Costs less than `look_up_keys`, which finds everything that a request may need.
    """
    try:
        rows = await db.fetch(_SQL["reuse_keys"], *_keys_and_grants(questions), DYNAMIC_TOKEN_LIFETIME_S)
    except RowGone:
        # One of the holders ended, and was deleted before it got its token.
        return [None] * len(questions)
    found: list[Lookup | None] = [None] * len(questions)
    for row in rows:
        found[row["place"] - 1] = Lookup(KeyLookup(held=_held(row, live=True), removed=False, drone=None))
    return found


async def look_up_keys(
    db: Database | Transaction, counts: BackendCounts, questions: Sequence[Question]
) -> list[Lookup]:
    """First trip: each key's holder (given a token if it is live and the tag matches), or a drone that could spawn.

    Drones are counted by ``counts``, and those that are not in it any more by the database.
    """
    now_s = asyncio.get_running_loop().time()
    places = {(q.cluster, q.pool): 0 for q in questions if q.cluster is not None}
    places = {wanted: place for place, wanted in enumerate(places, 1)}
    args = (
        *_keys_and_grants(questions),
        DYNAMIC_TOKEN_LIFETIME_S,
        [cluster for cluster, _ in places],
        [pool for _, pool in places],
        [None if q.cluster is None else places[q.cluster, q.pool] for q in questions],
        sum(q.best_of for q in questions),
        UNHEALTHY_AFTER_S,
        COUNTED_BACKENDS,
        counts.recent(now_s),
    )
    try:
        rows = await db.fetch(_SQL["look_up_keys"], *args)
    except RowGone:
        # A holder that ended was deleted before it got its token. It is no holder any more.
        rows = await db.fetch(_SQL["look_up_keys"], *args)
    hands = _hands(rows[0]["drones"], len(places), counts, now_s)
    return [
        Lookup(
            key=KeyLookup(
                held=None if row["id"] is None else _held(row, live=row["live"]),
                removed=row["removed"],
                may_grant=row["may_grant"],
                drone=None
                if question.cluster is None or row["live"]
                else hands[places[question.cluster, question.pool]].deal(question.best_of),
            ),
            lease_left_s=row["lease_left_s"],
            db_now_ms=row["db_now"],
            last_fencing_token=row["last_fencing_token"],
        )
        for question, row in zip(questions, rows, strict=True)
    ]


def _keys_and_grants(questions: Sequence[Question]) -> tuple[list[str | None], ...]:
    """The parameters with which both statements for keys begin: $1 to $7, an array each."""
    return (
        [q.key.namespace for q in questions],
        [q.key.name for q in questions],
        [q.key.tag for q in questions],
        [q.grant.token for q in questions],
        [q.grant.secret_token for q in questions],
        [q.grant.user for q in questions],
        [q.grant.auth for q in questions],
    )


def _hands(drones: str | None, places: int, counts: BackendCounts, now_s: float) -> dict[int, DroneHand]:
    """The drones of each cluster and pool that were asked for, by its place."""
    found: dict[int, list[DroneCandidate]] = {place: [] for place in range(1, places + 1)}
    for drone in codec.decode(drones, list) if drones else []:
        if drone["backend_count"] is not None:
            counts.counted(drone["id"], drone["backend_count"], now_s)
        candidate = DroneCandidate(drone_id=drone["id"], name=drone["name"], local_time=DroneTime(drone["local_time"]))
        found[drone["wanted"]].append(candidate)
    return {place: DroneHand(candidates, counts) for place, candidates in found.items()}


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
    """Second trip: store backends with all that belongs to them, and tell the drones' controllers.

    False where another connect took the key meanwhile, be it of the same batch, or where no key is granted now.

    Raises:
        BackendExists: a backend with a wanted id exists; nothing was stored.
    """
    first = {(new.key.key.namespace, new.key.key.name): new for new in reversed(wanted)}
    asked = [first[key] for key in sorted(first)]
    try:
        rows = await db.fetch(
            _SQL["spawn_backends"],
            [new.backend_id for new in asked],
            [new.cluster for new in asked],
            [new.action.drone_id for new in asked],
            [new.config.lifetime_limit_seconds for new in asked],
            [new.config.max_idle_seconds for new in asked],
            [new.key.key.namespace for new in asked],
            [new.key.key.name for new in asked],
            [new.key.key.tag for new in asked],
            [new.key.token for new in asked],
            [new.key_is_random for new in asked],
            [new.static_token for new in asked],
            [new.config.subdomain for new in asked],
            [new.action.action_id for new in asked],
            [codec.encode(new.action).decode() for new in asked],
            [new.grant.token for new in asked],
            [new.grant.secret_token for new in asked],
            [new.grant.user for new in asked],
            [new.grant.auth for new in asked],
            KEY_LEASE_S,
            BackendStatus.SCHEDULED.number,
            _SCHEDULED,
            DYNAMIC_TOKEN_LIFETIME_S,
            [new.leased_at.ms for new in asked],
            [new.config.rewrite_prefix is True for new in asked],
            [new.config.token_in_cookie is True for new in asked],
        )
    except asyncpg.UniqueViolationError as error:
        raise BackendExists from error
    stored = {row["backend_id"] for row in rows}
    return [first[new.key.key.namespace, new.key.key.name] is new and new.backend_id in stored for new in wanted]
