"""The states of an exchange, which is one request and its response, and the table of what leads from one to another.

`plane.decisions.http.exchange` follows the table. The diagram in `docs/internals/architecture.md` is drawn from it.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["TRANSITIONS", "Event", "State"]


class State(enum.StrEnum):
    """How far an exchange is."""

    IDLE = "idle"
    """There is no request. A part of its head may have come."""
    ROUTING = "routing"
    """The head is complete, and the backend is being looked up."""
    CONNECTING = "connecting"
    """The backend is known, and a connection to it is being obtained."""
    SENDING = "sending"
    """The request is sent to the backend, and its body is not complete. No response head has come."""
    AWAITING = "awaiting"
    """The whole request is sent to the backend. No response head has come."""
    EARLY = "early"
    """The response has begun before the end of the request's body. The connection closes after it."""
    STREAMING = "streaming"
    """The response has begun, and its body is not complete."""
    TUNNEL = "tunnel"
    """The backend has switched protocols. `decisions/http/tunnel_timeout` decides from here on."""
    CLOSING = "closing"
    """No further request is read. The client takes what was sent to it, or stops sending."""
    CLOSED = "closed"
    """The connection to the client is gone, or is cut."""


class Event(enum.StrEnum):
    """What moves an exchange."""

    REQUEST_HEAD = "request head"
    BACKEND_FOUND = "backend found"
    CONNECTED = "connected"
    REQUEST_END = "request end"
    STALE = "reused connection was stale"
    RESPONSE_HEAD = "response head"
    RESPONSE_END = "response end"
    UPGRADED = "upgraded"
    LAST_RESPONSE_END = "last response end"
    CUT = "cut"


_ENDS: Final = {Event.LAST_RESPONSE_END: State.CLOSING, Event.CUT: State.CLOSED}

# A response of the proxy's own has no response head here: it is complete at once.
TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {Event.REQUEST_HEAD: State.ROUTING, **_ENDS},
    State.ROUTING: {Event.BACKEND_FOUND: State.CONNECTING, Event.RESPONSE_END: State.IDLE, **_ENDS},
    State.CONNECTING: {Event.CONNECTED: State.SENDING, Event.RESPONSE_END: State.IDLE, **_ENDS},
    State.SENDING: {
        Event.REQUEST_END: State.AWAITING,
        Event.RESPONSE_HEAD: State.EARLY,
        Event.UPGRADED: State.TUNNEL,
        **_ENDS,
    },
    State.AWAITING: {
        Event.RESPONSE_HEAD: State.STREAMING,
        Event.STALE: State.CONNECTING,
        Event.RESPONSE_END: State.IDLE,
        Event.UPGRADED: State.TUNNEL,
        **_ENDS,
    },
    State.EARLY: {Event.REQUEST_END: State.STREAMING, **_ENDS},
    State.STREAMING: {Event.RESPONSE_END: State.IDLE, **_ENDS},
    State.TUNNEL: {Event.CUT: State.CLOSED},
    State.CLOSING: {Event.CUT: State.CLOSED},
    State.CLOSED: {},
}
