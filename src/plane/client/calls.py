"""The requests of the client's calls, and the types of their responses. No I/O; both clients use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec

from plane.client.errors import CallRefused, UnexpectedResponse
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatusStreamEntry
from plane.protocol.control_api import (
    BackendUsage,
    ClusterState,
    ConnectRequest,
    ConnectResponse,
    ControllerStatus,
    DrainResult,
    RevokeRequest,
)
from plane.protocol.errors import ApiError, ApiErrorKind, MessageError
from plane.protocol.event_feed import EventPage
from plane.protocol.inspection import BackendDetail, BackendList, NodeList
from plane.protocol.times import DroneTime
from plane.protocol.webhooks import WebhookConfig, WebhookInfo, WebhookList, WebhookSecret, WebhookTest
from plane.transport.server_sent_events import ServerSentEvent

__all__ = [
    "Call",
    "OutputLine",
    "backend",
    "backends",
    "cluster_state",
    "connect",
    "controller_metrics",
    "controller_status",
    "delete_webhook",
    "drain",
    "event_stream_path",
    "events",
    "logs_path",
    "nodes",
    "parse_event",
    "parse_response",
    "refusal",
    "revoke",
    "set_webhook",
    "status",
    "status_stream_path",
    "terminate",
    "test_webhook",
    "usage",
    "webhook",
    "webhooks",
]

T = TypeVar("T")


class OutputLine(msgspec.Struct, frozen=True):
    """A line of a backend's output, and when the drone's machine received it."""

    time: DroneTime
    text: str


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        response: type of the result.
        idempotent: the request may be sent again, since two have the same effect as one.
        is_text: the response is text instead of JSON.
    """

    method: str
    path: str
    response: type[T]
    body: Any = None
    idempotent: bool = True
    is_text: bool = False

    @property
    def content(self) -> bytes | None:
        """The encoded body."""
        return None if self.body is None else codec.encode(self.body)


def _part(name: str) -> str:
    return quote(name, safe="")


def connect(request: ConnectRequest) -> Call[ConnectResponse]:
    """Get or create the backend of a key. Without a key each request spawns a backend, so it is not idempotent."""
    return Call("POST", "/ctrl/connect", ConnectResponse, request, idempotent=request.key is not None)


def status(backend: str) -> Call[BackendStatusStreamEntry]:
    """Get a backend's current state."""
    return Call("GET", f"/pub/b/{_part(backend)}/status", BackendStatusStreamEntry)


def status_stream_path(backend: str) -> str:
    """Return the path of the stream of a backend's states."""
    return f"/pub/b/{_part(backend)}/status-stream"


def logs_path(backend: str, tail: int | None, *, follow: bool) -> str:
    """Return the path of a backend's output as a stream of events."""
    return f"/ctrl/b/{_part(backend)}/logs" + _query({"tail": tail, "follow": "true" if follow else None})


def usage(backend: str) -> Call[BackendUsage]:
    """Get a backend's resource usage."""
    return Call("GET", f"/ctrl/b/{_part(backend)}/metrics", BackendUsage)


def controller_metrics() -> Call[str]:
    """Get the controller's own metrics."""
    return Call("GET", "/metrics", str, is_text=True)


def terminate(backend: str, *, hard: bool) -> Call[None]:
    """Terminate a backend gracefully, or (``hard``) kill it."""
    return Call("POST", f"/ctrl/b/{_part(backend)}/{'hard' if hard else 'soft'}-terminate", _NOTHING)


def revoke(backend: str, user: str) -> Call[str]:
    """Revoke the tokens of ``user`` for a backend."""
    return Call("POST", "/ctrl/b/revoke", str, RevokeRequest(backend, user))


def drain(cluster: str, drone: str, *, undo: bool) -> Call[DrainResult]:
    """Drain a drone, or (``undo``) end that."""
    return Call("POST", f"/ctrl/c/{_part(cluster)}/d/{_part(drone)}/{'undrain' if undo else 'drain'}", DrainResult)


def backends(
    cluster: str | None, status: str | None, key: str | None, namespace: str | None, limit: int | None
) -> Call[BackendList]:
    """List backends, the latest change first."""
    parameters = {"cluster": cluster, "status": status, "key": key, "namespace": namespace, "limit": limit}
    return Call("GET", "/ctrl/backends" + _query(parameters), BackendList)


def nodes(cluster: str | None, *, include_disconnected: bool, limit: int | None) -> Call[NodeList]:
    """List nodes, connected ones first."""
    parameters = {"cluster": cluster, "all": "true" if include_disconnected else None, "limit": limit}
    return Call("GET", "/ctrl/nodes" + _query(parameters), NodeList)


def _query(parameters: dict[str, Any]) -> str:
    given = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"?{given}" if given else ""


def backend(name: str) -> Call[BackendDetail]:
    """Get the details of a backend."""
    return Call("GET", f"/ctrl/b/{_part(name)}", BackendDetail)


def cluster_state(cluster: str) -> Call[ClusterState]:
    """Get the connected nodes of a cluster."""
    return Call("GET", f"/ctrl/c/{_part(cluster)}/state", ClusterState)


def controller_status() -> Call[ControllerStatus]:
    """Get the status and the version of the controller."""
    return Call("GET", "/ctrl/status", ControllerStatus)


def events(
    after: int | None, before: int | None, types: Sequence[str] | None, key: str | None, limit: int | None
) -> Call[EventPage]:
    """Get a page of the event feed."""
    parameters = {"after": after, "before": before, "types": _joined(types), "key": key, "limit": limit}
    return Call("GET", "/ctrl/events" + _query(parameters), EventPage)


def event_stream_path(after: int, types: Sequence[str] | None, key: str | None) -> str:
    """Return the path of the stream of events after a cursor."""
    return "/ctrl/events" + _query({"follow": "true", "after": after, "types": _joined(types), "key": key})


def _joined(types: Sequence[str] | None) -> str | None:
    return None if types is None else ",".join(types)


def set_webhook(name: str, config: WebhookConfig) -> Call[WebhookSecret]:
    """Make or change a webhook. Not sent twice: the second response would not have the new secret."""
    return Call("PUT", f"/ctrl/webhooks/{_part(name)}", WebhookSecret, config, idempotent=False)


def webhook(name: str) -> Call[WebhookInfo]:
    """Get a webhook and its state."""
    return Call("GET", f"/ctrl/webhooks/{_part(name)}", WebhookInfo)


def webhooks() -> Call[WebhookList]:
    """List webhooks."""
    return Call("GET", "/ctrl/webhooks", WebhookList)


def delete_webhook(name: str) -> Call[None]:
    """Delete a webhook. Not sent twice: it would not be found the second time."""
    return Call("DELETE", f"/ctrl/webhooks/{_part(name)}", _NOTHING, idempotent=False)


def test_webhook(name: str) -> Call[WebhookTest]:
    """Send a test message."""
    return Call("POST", f"/ctrl/webhooks/{_part(name)}/test", WebhookTest)


# For a type checker `None` is not a type[T], although the codec accepts it.
_NOTHING = cast("type[None]", None)


def parse_response(call: Call[T], http_status: int, body: bytes) -> T:
    """Return the result of ``call``.

    Raises:
        CallRefused, UnexpectedResponse
    """
    if http_status != 200:
        raise refusal(http_status, body)
    if call.is_text:
        return cast("T", body.decode(errors="replace"))
    try:
        return codec.decode(body, call.response)
    except MessageError as error:
        raise UnexpectedResponse(
            f"the response to {call.method} {call.path} is not that of a controller: {error}"
        ) from None


def parse_event(event: ServerSentEvent, kind: type[T]) -> T:
    """Decode an event of a stream.

    Raises:
        UnexpectedResponse
    """
    try:
        return codec.decode(event.data, kind)
    except MessageError as error:
        raise UnexpectedResponse(f"the stream is not that of a controller: {error}") from None


def refusal(http_status: int, body: bytes) -> CallRefused:
    """Return the error for a response other than 200."""
    try:
        error = codec.decode(body, ApiError)
    except MessageError:
        # 401 and 502 of forward auth are plain text, 404 of an unknown path has no body.
        text = body[:200].decode(errors="replace").strip() or "refused without a reason"
        if text.startswith(("{", "<")):
            text = f"the response is not from a controller: {'an HTML page' if text[0] == '<' else text}"
        return CallRefused(http_status, ApiErrorKind.OTHER, text, None)
    cursor = error.cursor if isinstance(error.cursor, int) else None
    return CallRefused(http_status, error.kind, error.message, error.id, cursor)
