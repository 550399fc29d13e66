"""The commands that `plane.decisions.http.exchange` returns to its shell, in the order of their execution.

Those with data are msgspec's structs, which are made in half the time of a dataclass.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

__all__ = [
    "Action",
    "Command",
    "Connect",
    "FinishResponse",
    "Incident",
    "Report",
    "SendClient",
    "SendUpstream",
    "StartResponse",
    "StartTunnel",
]


class Action(enum.Enum):
    """Commands without data."""

    PAUSE_CLIENT = enum.auto()
    RESUME_CLIENT = enum.auto()
    PAUSE_UPSTREAM = enum.auto()
    RESUME_UPSTREAM = enum.auto()
    POOL_UPSTREAM = enum.auto()
    """Another request may use the connection to the backend."""
    KEEP_UPSTREAM = enum.auto()
    """Only the next request of this client may use it: bytes that belong to no response may still come."""
    ABORT_UPSTREAM = enum.auto()
    FIND_BACKEND = enum.auto()
    """Look up the backend of `Exchange.head`, whose target is in origin form.

    Then call `Exchange.backend_found`, `Exchange.local_response` or `Exchange.respond`.
    """
    SEND_HEAD = enum.auto()
    """Send the backend the request's head, as it was written when the backend was found."""
    END = enum.auto()
    """The exchange is complete, and the connection stays open. `CLOSE`, `LINGER`, `ABORT` and `RESET` imply it."""
    CLOSE = enum.auto()
    """Close the client's connection when everything is written."""
    LINGER = enum.auto()
    """End the direction to the client, and discard what it still sends."""
    ABORT = enum.auto()
    """Close the client's connection at once."""
    RESET = enum.auto()
    """The same so that the client sees an error. An orderly end would mean that the response is complete."""
    READ_NEXT = enum.auto()
    """Call `Exchange.read_next` after the commands before this one: they may have paused the client."""


class Connect(enum.Enum):
    """Get a connection to the backend, then call `Exchange.connected` or `Exchange.connect_failed`."""

    REPEATABLE = enum.auto()
    """A free one may have been closed by the backend: the request is then sent again."""
    ONCE = enum.auto()
    """A free one must be known to be open, since the request cannot be sent again."""
    NEW = enum.auto()
    """No free one."""


class Incident(enum.Enum):
    """Incidents that are logged."""

    REQUEST_REFUSED = enum.auto()
    RESPONSE_INVALID = enum.auto()
    STALLED = enum.auto()


class SendUpstream(msgspec.Struct):
    """Send bytes of the request to the backend."""

    data: bytes


class StartResponse(msgspec.Struct):
    """Send the client a final response's head, and the bytes of its body that have arrived."""

    status: int
    data: bytes


class FinishResponse(msgspec.Struct):
    """`StartResponse` with a complete response, `Action.POOL_UPSTREAM` and `Action.END`, as one command.

    Most responses are such. Together with `Exchange._start_response` it is a shortcut that saves each of them a
    microsecond.
    """

    status: int
    data: bytes


class SendClient(msgspec.Struct):
    """Send the client a part of the body, or an interim response."""

    data: bytes


class StartTunnel(msgspec.Struct):
    """Send both sides these bytes, and from then on each what the other one sends."""

    to_client: bytes
    to_upstream: bytes


class Report(msgspec.Struct):
    """Log an incident. ``status``: of the response to it, 0 without one."""

    incident: Incident
    status: int
    reason: str


Command: TypeAlias = (
    Action | Connect | SendUpstream | StartResponse | FinishResponse | SendClient | StartTunnel | Report
)
