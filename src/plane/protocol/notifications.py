"""Payloads of PostgreSQL notifications, the message bus between controllers."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import msgspec

from plane.protocol.backend_state import BackendStatus
from plane.protocol.codec import Int64

__all__ = ["EVENTS_CHANNEL", "LOGS_CHANNEL", "METRICS_CHANNEL", "Event", "EventKind", "NodeConnection", "ended_backend"]

EVENTS_CHANNEL = "plane_events"
METRICS_CHANNEL = "plane_backend_metrics"
# Ours: questions for a backend's output and their answers, between the controller that is asked and the one to which
# the backend's drone is connected. No id, no row; an original controller does not listen there.
LOGS_CHANNEL = "plane_logs"


class EventKind(enum.StrEnum):
    """Kinds of events; the comment is what their ``key`` is."""

    BACKEND_STATE = "backend_state"  # the backend's id
    BACKEND_ACTION = "backend_action"  # the drone's integer id, as text
    NODE_CONNECTION = "node_connection"  # none
    BACKEND_METRICS = "backend_metrics"  # the backend's id
    LOGS_WANTED = "logs_wanted"  # the drone's integer id, as text; on the channel of logs
    LOGS_READ = "logs_read"  # the request's id; on the channel of logs
    TOKENS_REVOKED = "tokens_revoked"  # the backend's id; ours, and ignored by originals


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What LISTEN hears. ``id`` is the row in ``event``; a metrics event has none.

    ``payload`` is ``None`` when it was too large to travel (A6): it stands in the row.
    """

    kind: str
    timestamp: datetime.datetime
    payload: dict[str, Any] | None = None
    key: str | None = None
    id: Int64 | None = None


def ended_backend(event: Event) -> str | None:
    """The backend that is terminated, of an event of `EventKind.BACKEND_STATE`; None if it has another state."""
    return event.key if (event.payload or {}).get("status") == BackendStatus.TERMINATED else None


class NodeConnection(msgspec.Struct, frozen=True):
    """A node came to, or left, a controller."""

    node_id: Int64
    connected: bool
