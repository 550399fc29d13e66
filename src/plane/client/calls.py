"""What is sent for each thing that can be asked, and what its answer is: no I/O, the one source for both clients."""

from __future__ import annotations

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
from plane.protocol.inspection import BackendDetail, BackendList, NodeList
from plane.protocol.times import DroneTime
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
    "drain",
    "logs_path",
    "nodes",
    "read_answer",
    "read_event",
    "refusal",
    "revoke",
    "status",
    "status_stream_path",
    "terminate",
    "usage",
]

T = TypeVar("T")


class OutputLine(msgspec.Struct, frozen=True):
    """A line of a backend's output, and when its drone's machine heard it."""

    time: DroneTime
    text: str


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        answer: type of the result; ``is_text``: it is no JSON.
        idempotent: asking twice does no more than asking once, so it may be sent again.
    """

    method: str
    path: str
    answer: type[T]
    body: Any = None
    idempotent: bool = True
    is_text: bool = False

    @property
    def content(self) -> bytes | None:
        """The body as it is sent."""
        return None if self.body is None else codec.encode(self.body)


def _part(name: str) -> str:
    return quote(name, safe="")


def connect(request: ConnectRequest) -> Call[ConnectResponse]:
    """The URL of a key's process. Without a key each request is another process, so it is sent once only."""
    return Call("POST", "/ctrl/connect", ConnectResponse, request, idempotent=request.key is not None)


def status(backend: str) -> Call[BackendStatusStreamEntry]:
    """A backend's state now."""
    return Call("GET", f"/pub/b/{_part(backend)}/status", BackendStatusStreamEntry)


def status_stream_path(backend: str) -> str:
    """Path of the stream of a backend's states."""
    return f"/pub/b/{_part(backend)}/status-stream"


def logs_path(backend: str, tail: int | None, *, follow: bool) -> str:
    """Path of a backend's output, as a stream of events."""
    return f"/ctrl/b/{_part(backend)}/logs" + _query({"tail": tail, "follow": "true" if follow else None})


def usage(backend: str) -> Call[BackendUsage]:
    """What a backend uses."""
    return Call("GET", f"/ctrl/b/{_part(backend)}/metrics", BackendUsage)


def controller_metrics() -> Call[str]:
    """The controller's own metrics."""
    return Call("GET", "/metrics", str, is_text=True)


def terminate(backend: str, *, hard: bool) -> Call[None]:
    """End a backend: asked to stop, or (``hard``) killed."""
    return Call("POST", f"/ctrl/b/{_part(backend)}/{'hard' if hard else 'soft'}-terminate", _NOTHING)


def revoke(backend: str, user: str) -> Call[str]:
    """End what ``user`` may do with a backend."""
    return Call("POST", "/ctrl/b/revoke", str, RevokeRequest(backend, user))


def drain(cluster: str, drone: str, *, undo: bool) -> Call[DrainResult]:
    """Give a drone no more backends, or (``undo``) again."""
    return Call("POST", f"/ctrl/c/{_part(cluster)}/d/{_part(drone)}/{'undrain' if undo else 'drain'}", DrainResult)


def backends(
    cluster: str | None, status: str | None, key: str | None, namespace: str | None, limit: int | None
) -> Call[BackendList]:
    """Backends, the latest change first."""
    asked = {"cluster": cluster, "status": status, "key": key, "namespace": namespace, "limit": limit}
    return Call("GET", "/ctrl/backends" + _query(asked), BackendList)


def nodes(cluster: str | None, *, include_disconnected: bool, limit: int | None) -> Call[NodeList]:
    """Nodes, connected ones first."""
    asked = {"cluster": cluster, "all": "true" if include_disconnected else None, "limit": limit}
    return Call("GET", "/ctrl/nodes" + _query(asked), NodeList)


def _query(asked: dict[str, Any]) -> str:
    given = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"?{given}" if given else ""


def backend(name: str) -> Call[BackendDetail]:
    """All that is known of a backend."""
    return Call("GET", f"/ctrl/b/{_part(name)}", BackendDetail)


def cluster_state(cluster: str) -> Call[ClusterState]:
    """The connected nodes of a cluster."""
    return Call("GET", f"/ctrl/c/{_part(cluster)}/state", ClusterState)


def controller_status() -> Call[ControllerStatus]:
    """Does the controller answer, and which is it?"""
    return Call("GET", "/ctrl/status", ControllerStatus)


# `None` is no type[T] for a type checker, though the codec takes it.
_NOTHING = cast("type[None]", None)


def read_answer(call: Call[T], http_status: int, body: bytes) -> T:
    """The result of ``call``.

    Raises:
        CallRefused, UnexpectedResponse
    """
    if http_status != 200:
        raise refusal(http_status, body)
    if call.is_text:
        return cast("T", body.decode(errors="replace"))
    try:
        return codec.decode(body, call.answer)
    except MessageError as error:
        raise UnexpectedResponse(
            f"the answer to {call.method} {call.path} is not what a controller says: {error}"
        ) from None


def read_event(event: ServerSentEvent, kind: type[T]) -> T:
    """What an event of a stream says.

    Raises:
        UnexpectedResponse
    """
    try:
        return codec.decode(event.data, kind)
    except MessageError as error:
        raise UnexpectedResponse(f"the stream is not what a controller says: {error}") from None


def refusal(http_status: int, body: bytes) -> CallRefused:
    """The error that an answer other than 200 means."""
    try:
        error = codec.decode(body, ApiError)
    except MessageError:
        # 401 and 502 of forward auth are plain text, 404 of an unknown path has no body.
        text = body[:200].decode(errors="replace").strip() or "refused without a word"
        return CallRefused(http_status, ApiErrorKind.OTHER, text, None)
    return CallRefused(http_status, error.kind, error.message, error.id)
