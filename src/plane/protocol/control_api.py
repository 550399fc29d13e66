"""Bodies of the control API: connect, revoke, drain, states and health."""

from __future__ import annotations

from typing import Any

import msgspec

from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.protocol.codec import Variants
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DbTime

__all__ = [
    "BackendUsage",
    "ClusterState",
    "ConnectRequest",
    "ConnectResponse",
    "ControllerStatus",
    "DrainResult",
    "DroneState",
    "NodeNameOfKind",
    "NodeState",
    "PublicHealth",
    "RevokeRequest",
]


class ConnectRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /ctrl/connect``. The backend receives ``auth`` as the header ``x-verified-user-data``."""

    key: KeyConfig | None = None
    spawn_config: SpawnConfig | None = None
    user: str | None = None
    auth: dict[str, Any] | None = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "auth")


class ConnectResponse(msgspec.Struct, frozen=True, kw_only=True):
    """``drone`` is set only if this request spawned the backend; ``secret_token`` is null for static tokens."""

    backend_id: str
    spawned: bool
    status: BackendStatus
    token: str
    url: str
    subdomain: str | None = None
    secret_token: str | None = None
    status_url: str
    drone: str | None = None

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "token", "url", "secret_token")


class RevokeRequest(msgspec.Struct, frozen=True):
    """Revokes all tokens of ``user`` for ``backend_id``."""

    backend_id: str
    user: str


class BackendUsage(BackendMetrics, frozen=True, kw_only=True):
    """``GET /ctrl/b/{backend}/metrics``; ``time`` is when the database published them."""

    time: DbTime


class DrainResult(msgspec.Struct, frozen=True):
    """``updated`` is false if the drone already was in the requested state."""

    updated: bool


class PublicHealth(msgspec.Struct, frozen=True):
    """``GET /pub/health``."""

    status: str = "ok"


class ControllerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /ctrl/status``."""

    version: str
    hash: str
    status: str = "ok"


class NodeNameOfKind(Variants, frozen=True, kw_only=True):
    """A node's name, tagged with its kind: ``{"Drone": "dr-…"}``."""

    proxy: str | msgspec.UnsetType = msgspec.UNSET
    drone: str | msgspec.UnsetType = msgspec.UNSET
    acme_dns_server: str | msgspec.UnsetType = msgspec.UNSET


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node that is connected to a controller; ages are in seconds."""

    name: NodeNameOfKind
    plane_version: str
    plane_hash: str
    controller: str
    controller_heartbeat_age: int


class DroneState(msgspec.Struct, frozen=True, kw_only=True):
    """A drone of a cluster; ``backend_count`` excludes terminated backends; ages are in seconds."""

    ready: bool
    draining: bool
    last_heartbeat_age: int
    backend_count: int
    node: NodeState


class ClusterState(msgspec.Struct, frozen=True):
    """``GET /ctrl/c/{cluster}/state``."""

    drones: list[DroneState]
    proxies: list[NodeState]
