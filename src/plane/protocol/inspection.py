"""Responses of the control API for operators; Plane 0.5.5 does not have them."""

from __future__ import annotations

import msgspec

from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry
from plane.protocol.keys import KeyConfig
from plane.protocol.names import NodeKind
from plane.protocol.times import DbTime

__all__ = ["BackendDetail", "BackendList", "BackendSummary", "NodeList", "NodeSummary"]


class BackendSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of a list. ``since`` is when it entered its status; ``quiet_s`` is the time since its last use.

    ``key`` is the key that it was spawned for; None once its spawn action has been deleted.
    """

    id: str
    cluster: str
    status: BackendStatus
    since: DbTime
    drone: str
    pool: str
    quiet_s: int
    key: KeyConfig | None = None


class BackendList(msgspec.Struct, frozen=True):
    """``GET /ctrl/backends``, the latest change first. ``more``: further ones match, or were not searched."""

    backends: list[BackendSummary]
    more: bool


class BackendDetail(BackendSummary, frozen=True, kw_only=True):
    """``GET /ctrl/b/{backend}``: everything that the database stores of a backend, except its tokens.

    ``lease_ends_in_s`` and ``fencing_token`` are None if the backend holds no key. ``lifetime_ends_in_s`` and
    ``max_idle_s`` are None without such a limit. ``tokens`` counts valid tokens; ``pending_actions`` counts actions
    that the drone has not acknowledged.
    """

    states: list[BackendStatusStreamEntry]
    address: str | None
    lease_ends_in_s: int | None
    fencing_token: int | None
    lifetime_ends_in_s: int | None
    max_idle_s: int | None
    subdomain: str | None
    static_token: bool
    tokens: int
    pending_actions: int


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One node. ``controller`` and ``connected_s`` (since the start of its connection) are None without a connection.

    ``cluster`` is None for a DNS server. The last five fields are of drones only; ``backends`` excludes terminated
    ones.
    """

    name: str
    kind: NodeKind
    cluster: str | None
    controller: str | None
    connected_s: int | None
    plane_version: str
    plane_hash: str
    ip: str
    ready: bool | None = None
    draining: bool | None = None
    pool: str | None = None
    heartbeat_age_s: int | None = None
    backends: int | None = None


class NodeList(msgspec.Struct, frozen=True):
    """``GET /ctrl/nodes``, connected ones first. ``more``: further ones match."""

    nodes: list[NodeSummary]
    more: bool
