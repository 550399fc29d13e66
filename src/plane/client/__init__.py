"""The Python client of the control API, for applications.

`AsyncPlane` is for programs on asyncio, `Plane` for all others. `Plane` runs an `AsyncPlane` in a thread of its own, so
both behave alike. `calls` defines the requests, `errors` their failures.

    from plane.client import Plane, ProcessExecutable, SpawnConfig

    with Plane("http://127.0.0.1:8080") as plane:
        response = plane.connect("my-document", SpawnConfig(executable=ProcessExecutable(command=["./server"])))
        print(response.url)
"""

from typing import TYPE_CHECKING, Any

from plane.client.calls import OutputLine
from plane.client.errors import (
    BackendEnded,
    CallFailed,
    CallRefused,
    ControllerUnreachable,
    UnexpectedResponse,
)
from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry, TerminationKind, TerminationReason
from plane.protocol.control_api import ClusterState, ConnectResponse
from plane.protocol.errors import ApiErrorKind
from plane.protocol.event_feed import EventPage, EventType, FeedEvent
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import DockerExecutable, ProcessExecutable, PullPolicy, ResourceLimits, SpawnConfig
from plane.protocol.webhooks import WebhookInfo, WebhookList, WebhookSecret, WebhookTest

if TYPE_CHECKING:
    from plane.client.async_client import AsyncPlane
    from plane.client.sync_client import Plane

__all__ = [
    "ApiErrorKind",
    "AsyncPlane",
    "BackendEnded",
    "BackendStatus",
    "BackendStatusStreamEntry",
    "CallFailed",
    "CallRefused",
    "ClusterState",
    "ConnectResponse",
    "ControllerUnreachable",
    "DockerExecutable",
    "EventPage",
    "EventType",
    "FeedEvent",
    "KeyConfig",
    "OutputLine",
    "Plane",
    "ProcessExecutable",
    "PullPolicy",
    "ResourceLimits",
    "SpawnConfig",
    "TerminationKind",
    "TerminationReason",
    "UnexpectedResponse",
    "WebhookInfo",
    "WebhookList",
    "WebhookSecret",
    "WebhookTest",
]


def __getattr__(name: str) -> Any:
    """Import the clients when they are used: importing aiohttp takes a tenth of a second."""
    match name:
        case "AsyncPlane":
            from plane.client.async_client import AsyncPlane

            return AsyncPlane
        case "Plane":
            from plane.client.sync_client import Plane

            return Plane
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
