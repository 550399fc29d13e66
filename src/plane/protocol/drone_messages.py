"""Messages between drones and controllers."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.backend_state import BackendState, TerminationKind, TerminationReason
from plane.protocol.codec import Int64, Variants
from plane.protocol.keys import AcquiredKey, KeyDeadlines
from plane.protocol.logs import LogsRead, ReadLogs
from plane.protocol.times import DroneTime

__all__ = [
    "AckAction",
    "AckEvent",
    "BackendAction",
    "BackendEvent",
    "BackendMetrics",
    "BackendOrder",
    "Heartbeat",
    "MessageFromDrone",
    "MessageToDrone",
    "RenewKey",
    "RenewKeyResponse",
    "SpawnOrder",
    "Stopping",
    "TerminateOrder",
]


class Heartbeat(msgspec.Struct, frozen=True):
    """A heartbeat with the time of the drone's clock."""

    local_time: DroneTime


class BackendEvent(msgspec.Struct, frozen=True):
    """A backend has a new ``state``. Sent again until acknowledged; ``event_id`` counts from 1 per drone."""

    event_id: Int64
    backend_id: str
    state: BackendState
    timestamp: DroneTime


class BackendMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in bytes, and CPU nanoseconds since the last message (of the backend, and of the machine)."""

    backend_id: str
    mem_used: Int64
    mem_total: Int64
    mem_active: Int64
    mem_inactive: Int64
    mem_unevictable: Int64
    mem_limit: Int64
    cpu_used: Int64
    sys_cpu: Int64


class AckAction(msgspec.Struct, frozen=True):
    """The action was applied."""

    action_id: str


class RenewKey(msgspec.Struct, frozen=True):
    """Requests a new lease of the backend's key, from ``local_time`` on."""

    backend: str
    local_time: DroneTime


class Stopping(msgspec.Struct, frozen=True):
    """The drone is about to stop and accepts no more backends (extension "stopping")."""


class MessageFromDrone(Variants, frozen=True, kw_only=True):
    """A message from a drone."""

    heartbeat: Heartbeat | UnsetType = UNSET
    backend_event: BackendEvent | UnsetType = UNSET
    backend_metrics: BackendMetrics | UnsetType = UNSET
    ack_action: AckAction | UnsetType = UNSET
    renew_key: RenewKey | UnsetType = UNSET
    stopping: Stopping | UnsetType = UNSET
    logs_read: LogsRead | UnsetType = UNSET


class SpawnOrder(msgspec.Struct, frozen=True):
    """Orders to spawn ``executable`` for ``key``.

    ``traceparent``: of the connect request, if it is traced (W3C Trace Context). ``clock``: the drone's clock that the
    deadlines are of, as in its handshake; absent if it sent none. Plane 0.5.5 ignores both.
    """

    executable: Any
    key: AcquiredKey
    static_token: str | None = None
    traceparent: str | UnsetType | None = UNSET
    clock: str | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "executable", "static_token")


class TerminateOrder(msgspec.Struct, frozen=True):
    """Orders to terminate the backend."""

    kind: TerminationKind
    reason: TerminationReason


class BackendOrder(Variants, frozen=True, kw_only=True):
    """The order of an action."""

    spawn: SpawnOrder | UnsetType = UNSET
    terminate: TerminateOrder | UnsetType = UNSET


class BackendAction(msgspec.Struct, frozen=True):
    """An order to a drone, sent until acknowledged; also the content of the column ``backend_action.action``."""

    action_id: str
    backend_id: str
    drone_id: Int64
    action: BackendOrder


class AckEvent(msgspec.Struct, frozen=True):
    """The event was stored."""

    event_id: Int64


class RenewKeyResponse(msgspec.Struct, frozen=True):
    """The new deadlines, or ``None`` if the key was not renewed."""

    backend: str
    deadlines: KeyDeadlines | None = None


class MessageToDrone(Variants, frozen=True, kw_only=True):
    """A message to a drone."""

    action: BackendAction | UnsetType = UNSET
    ack_event: AckEvent | UnsetType = UNSET
    renew_key_response: RenewKeyResponse | UnsetType = UNSET
    read_logs: ReadLogs | UnsetType = UNSET
