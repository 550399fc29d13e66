"""The Python client of the control API: what an application asks Plane for.

`AsyncPlane` for programs on asyncio, `Plane` for all others; the second is the first behind a thread of its own, so
both do the same. `calls` says what is sent for each; `errors` what may go wrong.

    from plane.client import Plane, ProcessExecutable, SpawnConfig

    with Plane("http://127.0.0.1:8080") as plane:
        answer = plane.connect("my-document", SpawnConfig(executable=ProcessExecutable(command=["./server"])))
        print(answer.url)
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
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import DockerExecutable, ProcessExecutable, PullPolicy, ResourceLimits, SpawnConfig

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
]


def __getattr__(name: str) -> Any:
    """Load the clients when they are used: they take a tenth of a second, for aiohttp."""
    match name:
        case "AsyncPlane":
            from plane.client.async_client import AsyncPlane

            return AsyncPlane
        case "Plane":
            from plane.client.sync_client import Plane

            return Plane
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
