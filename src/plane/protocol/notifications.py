"""Payloads of PostgreSQL notifications, the event bus between controllers."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import msgspec

from plane.protocol.backend_state import BackendStatus
from plane.protocol.codec import Int64

__all__ = [
    "EVENTS_CHANNEL",
    "LOGS_CHANNEL",
    "METRICS_CHANNEL",
    "Event",
    "EventKind",
    "NodeConnection",
    "terminated_backend",
]

EVENTS_CHANNEL = "plane_events"
METRICS_CHANNEL = "plane_backend_metrics"
# Log requests and responses, between the controller of the reader and that of the backend's drone. They have no id and
# no row. Controllers of Plane 0.5.5 do not listen on this channel.
LOGS_CHANNEL = "plane_logs"


class EventKind(enum.StrEnum):
    """Kinds of events; each comment describes the ``key``."""

    BACKEND_STATE = "backend_state"  # the backend's id
    BACKEND_ACTION = "backend_action"  # the drone's integer id, as text
    NODE_CONNECTION = "node_connection"  # none
    BACKEND_METRICS = "backend_metrics"  # the backend's id
    LOGS_WANTED = "logs_wanted"  # the drone's integer id, as text; on the logs channel
    LOGS_READ = "logs_read"  # the request's id; on the logs channel
    TOKENS_REVOKED = "tokens_revoked"  # the backend's id; Plane 0.5.5 ignores it


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a notification. ``id`` is of the row in the table ``event``; a metrics event has none.

    ``payload`` is ``None`` if it was too large for a notification; then the row has it. ``replayed``: the event bus has
    read it from its row after a lost connection, so it may be from any time before, and may have been handled.
    """

    kind: str
    timestamp: datetime.datetime
    payload: dict[str, Any] | None = None
    key: str | None = None
    id: Int64 | None = None
    replayed: bool = False


def terminated_backend(event: Event) -> str | None:
    """Return the backend of an event `EventKind.BACKEND_STATE` if it is terminated, else None."""
    return event.key if (event.payload or {}).get("status") == BackendStatus.TERMINATED else None


class NodeConnection(msgspec.Struct, frozen=True):
    """A node has connected to, or disconnected from, a controller."""

    node_id: Int64
    connected: bool
