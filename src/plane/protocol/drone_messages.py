"""What drones and controllers tell each other."""

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
    """The drone lives, and its clock says this."""

    local_time: DroneTime


class BackendEvent(msgspec.Struct, frozen=True):
    """A backend entered ``state``. Repeated until acknowledged; ``event_id`` counts per drone from 1."""

    event_id: Int64
    backend_id: str
    state: BackendState
    timestamp: DroneTime


class BackendMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and nanoseconds of CPU since the last message (the backend's own, and the whole machine's)."""

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
    """The action has been applied."""

    action_id: str


class RenewKey(msgspec.Struct, frozen=True):
    """Asks for another lease of the backend's key, counted from ``local_time``."""

    backend: str
    local_time: DroneTime


class Stopping(msgspec.Struct, frozen=True):
    """The drone is about to stop, and takes no more work (A14; extension "stopping")."""


class MessageFromDrone(Variants, frozen=True, kw_only=True):
    """One frame from a drone."""

    heartbeat: Heartbeat | UnsetType = UNSET
    backend_event: BackendEvent | UnsetType = UNSET
    backend_metrics: BackendMetrics | UnsetType = UNSET
    ack_action: AckAction | UnsetType = UNSET
    renew_key: RenewKey | UnsetType = UNSET
    stopping: Stopping | UnsetType = UNSET
    logs_read: LogsRead | UnsetType = UNSET


class SpawnOrder(msgspec.Struct, frozen=True):
    """Start ``executable`` for ``key``."""

    executable: Any
    key: AcquiredKey
    static_token: str | None = None

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "executable", "static_token")


class TerminateOrder(msgspec.Struct, frozen=True):
    """End the backend."""

    kind: TerminationKind
    reason: TerminationReason


class BackendOrder(Variants, frozen=True, kw_only=True):
    """What an action asks for."""

    spawn: SpawnOrder | UnsetType = UNSET
    terminate: TerminateOrder | UnsetType = UNSET


class BackendAction(msgspec.Struct, frozen=True):
    """An order to a drone, sent until acknowledged; also what ``backend_action.action`` holds."""

    action_id: str
    backend_id: str
    drone_id: Int64
    action: BackendOrder


class AckEvent(msgspec.Struct, frozen=True):
    """The event is stored; do not send it again."""

    event_id: Int64


class RenewKeyResponse(msgspec.Struct, frozen=True):
    """New deadlines, or ``None`` when the key could not be renewed."""

    backend: str
    deadlines: KeyDeadlines | None = None


class MessageToDrone(Variants, frozen=True, kw_only=True):
    """One frame to a drone."""

    action: BackendAction | UnsetType = UNSET
    ack_event: AckEvent | UnsetType = UNSET
    renew_key_response: RenewKeyResponse | UnsetType = UNSET
    read_logs: ReadLogs | UnsetType = UNSET
