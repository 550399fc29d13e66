"""The event feed of the control API: types of events, events, and pages of them; Plane 0.5.5 does not have it.

See ``docs/how-to/events-and-webhooks.md``.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from plane.protocol.times import DbTime

__all__ = ["EventPage", "EventType", "FeedEvent"]


class EventType(enum.StrEnum):
    """Types of events. Those of ``admin.`` are calls of the control API that changed something: the audit log."""

    BACKEND_SCHEDULED = "backend.scheduled"
    BACKEND_READY = "backend.ready"
    BACKEND_TERMINATED = "backend.terminated"
    DRONE_CONNECTED = "drone.connected"
    DRONE_DRAINING = "drone.draining"
    DRONE_UNDRAINED = "drone.undrained"
    DRONE_LOST = "drone.lost"
    ADMIN_TERMINATE = "admin.terminate"
    ADMIN_REVOKE = "admin.revoke"
    ADMIN_DRAIN = "admin.drain"
    ADMIN_UNDRAIN = "admin.undrain"
    ADMIN_WEBHOOK_SET = "admin.webhook_set"
    ADMIN_WEBHOOK_DELETE = "admin.webhook_delete"
    ADMIN_WEBHOOK_TEST = "admin.webhook_test"

    @property
    def is_admin(self) -> bool:
        """Whether it is a call of the control API."""
        return self.startswith("admin.")


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. ``id`` rises, with gaps; ``time`` is when the database stored it. Fields without a value are absent.

    Attributes:
        type: one of `EventType`; a newer controller may have further ones.
        namespace, key: of the key that the backend was spawned for.
        user: of the connect request that spawned the backend.
        data: fields of this type alone: ``termination_reason``, ``termination_kind``, ``exit_code`` and ``message`` of
            a terminated backend; ``version`` and ``address`` of a connected drone; ``caller`` (the name of the API
            key), ``address`` and ``arguments`` of a call.
    """

    id: int
    type: str
    time: DbTime
    cluster: str | None = None
    backend: str | None = None
    namespace: str | None = None
    key: str | None = None
    user: str | None = None
    drone: str | None = None
    data: dict[str, Any] = {}


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /ctrl/events``: events, oldest first.

    Attributes:
        cursor: the value of ``after`` for the events that follow.
        more: further events may exist already.
        older: the value of ``before`` for the events before these; None if there are none, or with ``after``.
    """

    events: list[FeedEvent]
    cursor: int
    more: bool
    older: int | None = None
