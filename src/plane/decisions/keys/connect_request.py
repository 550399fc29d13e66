"""Reuse, spawn or refuse: the outcome of a connect request, given what the database returned for its key.

The database settles races by its unique constraints. `plane.controller.api.connect` queries it and carries out the
decision. Rules and errors are described in ``docs/reference/protocol/control-api.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from plane.decisions.keys.connect_validation import check_identity
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.spawn import SpawnConfig

__all__ = ["HeldKey", "KeyLookup", "Retry", "Reuse", "Spawn", "decide", "next_fencing_token"]


# After a failover, keys are granted again within seconds, or after one lease.
GRANTS_RETRY_AFTER_S = 5


class HeldKey(msgspec.Struct, frozen=True):
    """The row of a key and its backend. ``live``: its lease has not expired, by the database's clock."""

    backend_id: str
    tag: str
    live: bool
    cluster: str
    status: BackendStatus
    static_token: str | None
    subdomain: str | None


class KeyLookup(msgspec.Struct, frozen=True):
    """What is known of a key.

    Attributes:
        held: the holder, if any.
        removed: an expired holder was removed.
        drone: where a backend would be spawned; None if no drone qualifies, or none is needed.
        may_grant: false if, after a failover of the database, a lost commit may have granted the key already.
        lease_left_s: until the holder's lease ends; None without a lease.
        db_now_ms: the database's time, for a new holder.
        last_fencing_token: the last one given for the key, for a new holder.
    """

    held: HeldKey | None
    removed: bool = False
    drone: DroneCandidate | None = None
    may_grant: bool = True
    lease_left_s: float | None = None
    db_now_ms: int = 0
    last_fencing_token: int | None = None


@dataclass(frozen=True, slots=True)
class Reuse:
    """Respond with the backend that holds the key."""

    held: HeldKey


@dataclass(frozen=True, slots=True)
class Spawn:
    """Spawn a backend on the drone."""

    config: SpawnConfig
    cluster: str
    drone: DroneCandidate


@dataclass(frozen=True, slots=True)
class Retry:
    """The key changed hands concurrently; look it up again. ``failure`` is the response after too many attempts."""

    failure: ApiFailure


def decide(request: ConnectRequest, cluster: str | None, lookup: KeyLookup) -> Reuse | Spawn | Retry:
    """Return what to do for ``request``; ``cluster`` is the one it names, else the controller's default.

    Raises:
        ApiFailure: the request is refused.
    """
    held = lookup.held
    if held is not None and held.live and held.status is BackendStatus.TERMINATED:
        raise ApiFailure(
            503,
            ApiErrorKind.FAILED_TO_ACQUIRE_KEY,
            "The backend of this key is lost, and its process may run until its lease ends. Retry.",
            retry_after_s=max(1, math.ceil(lookup.lease_left_s or 0.0)),
        )
    if held is not None and held.live:
        tag = request.key.tag if request.key else ""
        if held.tag != tag:
            raise ApiFailure(409, ApiErrorKind.KEY_HELD, "Lock is held but tag does not match.")
        if held.static_token is not None:
            check_identity(request)
        return Reuse(held)
    if held is not None and not lookup.removed:
        # It was renewed between the read and the delete, or removed by another connect.
        return Retry(ApiFailure(409, ApiErrorKind.FAILED_TO_REMOVE_KEY, "Failed to remove lock."))
    config = request.spawn_config
    if config is None:
        raise ApiFailure(
            409,
            ApiErrorKind.KEY_UNHELD_NO_SPAWN_CONFIG,
            "Lock is unheld but no spawn config was provided.",
        )
    if cluster is None:
        raise ApiFailure(
            400,
            ApiErrorKind.NO_CLUSTER_PROVIDED,
            "No cluster provided, and no default cluster for this controller.",
        )
    if not lookup.may_grant:
        raise ApiFailure(
            503,
            ApiErrorKind.FAILED_TO_ACQUIRE_KEY,
            "The database has failed over: no key is granted until leases that it may have lost have expired. Retry.",
            retry_after_s=GRANTS_RETRY_AFTER_S,
        )
    if lookup.drone is None:
        where = f"cluster {cluster!r}, pool {config.pool!r}" if config.pool else f"cluster {cluster!r}"
        raise ApiFailure(
            500,
            ApiErrorKind.NO_DRONE_AVAILABLE,
            f"No active drone available. None of {where} is connected, ready and not draining.",
        )
    return Spawn(config, cluster, lookup.drone)


def next_fencing_token(db_now_ms: int, last: int | None) -> int:
    """Return the database's time in ms, raised above any earlier token of the same key."""
    return db_now_ms if last is None else max(db_now_ms, last + 1)
