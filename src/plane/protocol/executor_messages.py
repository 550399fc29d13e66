"""Messages between a drone and an external executor (``--executor-socket``), one JSON object per line.

A request has an id that its response repeats; the id of an event is ``null``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.codec import Int32, UInt16, Variants
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.errors import MessageError
from plane.protocol.keys import AcquiredKey
from plane.protocol.spawn import DockerExecutable

__all__ = [
    "ExecutorRequest",
    "ExecutorResponse",
    "LeasedKey",
    "OtherFailure",
    "RequestLine",
    "ResponseLine",
    "SpawnOutcome",
    "SpawnResult",
    "TerminateEvent",
    "TerminateOutcome",
    "UnitOutcome",
    "WaitOutcome",
    "refusal",
    "refused_request",
    "request_kind",
]


class LeasedKey(AcquiredKey, frozen=True):
    """A key with the hard deadline of its backend, which Plane 0.5.5 does not have.

    ``hard_deadline_ns``: nanoseconds of CLOCK_BOOTTIME, which drone and executor share.
    """

    hard_deadline_ns: int | UnsetType = UNSET


class SpawnResult(msgspec.Struct, frozen=True):
    """The started container and its port.

    ``enforces_deadline``: the executor kills the backend at its hard deadline, and accepts ``Renew``. Absent from
    executors for Plane 0.5.5.
    """

    container_id: str
    port: UInt16
    enforces_deadline: bool | UnsetType = UNSET


class TerminateEvent(msgspec.Struct, frozen=True):
    """A backend's process has ended; ``exit_code`` is set if known."""

    backend_id: str
    exit_code: Int32 | None = None


class UnitOutcome(Variants, frozen=True, kw_only=True):
    """Success (``{"Ok": null}``), or the reason of a failure."""

    ok: UnsetType | None = UNSET
    err: str | UnsetType = UNSET


class SpawnOutcome(Variants, frozen=True, kw_only=True):
    """The result of a spawn, or the reason of a failure."""

    ok: SpawnResult | UnsetType = UNSET
    err: str | UnsetType = UNSET


class TerminateOutcome(Variants, frozen=True, kw_only=True):
    """Whether the backend was running, or the reason of a failure."""

    ok: bool | UnsetType = UNSET
    err: str | UnsetType = UNSET


class OtherFailure(Variants, frozen=True, kw_only=True):
    """A wait that failed for another reason than the timeout: ``{"Other": text}``."""

    other: str | UnsetType = UNSET


class WaitOutcome(Variants, frozen=True, kw_only=True):
    """The backend responds to HTTP; or ``"StartupTimeout"``, or another failure."""

    ok: UnsetType | None = UNSET
    err: Literal["StartupTimeout"] | OtherFailure | UnsetType = UNSET


class ExecutorRequest(Variants, frozen=True, kw_only=True):
    """A request of the drone."""

    prepare: DockerExecutable | UnsetType = UNSET
    spawn: tuple[str, DockerExecutable, LeasedKey | None, str | None] | UnsetType = UNSET
    terminate: tuple[str, bool] | UnsetType = UNSET
    wait_for_backend: tuple[str, str] | UnsetType = UNSET
    # The backend and its new hard deadline; only for backends whose spawn result has ``enforces_deadline``.
    renew: tuple[str, int] | UnsetType = UNSET


class ExecutorResponse(Variants, frozen=True, kw_only=True):
    """A response to a request, or an event."""

    prepare_result: UnitOutcome | UnsetType = UNSET
    spawn_result: SpawnOutcome | UnsetType = UNSET
    terminate_result: TerminateOutcome | UnsetType = UNSET
    wait_for_backend_result: WaitOutcome | UnsetType = UNSET
    renew_result: UnitOutcome | UnsetType = UNSET
    metrics_message: BackendMetrics | UnsetType = UNSET
    terminate_event: TerminateEvent | UnsetType = UNSET


class RequestLine(msgspec.Struct, frozen=True):
    """A line from the drone."""

    id: str
    message: ExecutorRequest


class ResponseLine(msgspec.Struct, frozen=True):
    """A line from the executor; ``id`` is ``None`` for events."""

    id: str | None
    message: ExecutorResponse


class _Envelope(msgspec.Struct, frozen=True):
    id: str
    message: dict[str, msgspec.Raw]


def refused_request(line: bytes) -> tuple[str, str] | None:
    """Return the id and the kind of a request whose content cannot be decoded; None if it is not a request."""
    try:
        envelope = codec.decode(line, _Envelope)
    except MessageError:
        return None
    kinds = list(envelope.message)
    return (envelope.id, kinds[0]) if len(kinds) == 1 and kinds[0] in _REFUSALS else None


def request_kind(request: ExecutorRequest) -> str:
    """Return the name of the variant that is set."""
    fields = msgspec.structs.fields(request)
    return next(field.encode_name for field in fields if getattr(request, field.name) is not UNSET)


def refusal(kind: str, reason: str) -> ExecutorResponse:
    """Return the response that refuses a request of this kind."""
    return _REFUSALS[kind](reason)


_REFUSALS: dict[str, Callable[[str], ExecutorResponse]] = {
    "Prepare": lambda reason: ExecutorResponse(prepare_result=UnitOutcome(err=reason)),
    "Spawn": lambda reason: ExecutorResponse(spawn_result=SpawnOutcome(err=reason)),
    "Terminate": lambda reason: ExecutorResponse(terminate_result=TerminateOutcome(err=reason)),
    "WaitForBackend": lambda reason: ExecutorResponse(
        wait_for_backend_result=WaitOutcome(err=OtherFailure(other=reason))
    ),
    "Renew": lambda reason: ExecutorResponse(renew_result=UnitOutcome(err=reason)),
}
