"""Lines between a drone and an external executor (``--executor-socket``).

One JSON object a line. A request carries an id and its answer repeats it; an event has ``null``.
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
    "ExecutorAnswer",
    "ExecutorLine",
    "ExecutorQuestion",
    "ExecutorRequest",
    "LeasedKey",
    "OtherFailure",
    "SpawnOutcome",
    "SpawnResult",
    "TerminateEvent",
    "TerminateOutcome",
    "UnitOutcome",
    "WaitOutcome",
    "kind_of_request",
    "refusal",
    "refused_request",
]


class LeasedKey(AcquiredKey, frozen=True):
    """A key, and until when its backend may run at most; originals know nothing of the latter.

    ``hard_deadline_ns``: nanoseconds of CLOCK_BOOTTIME, which drone and executor share.
    """

    hard_deadline_ns: int | UnsetType = UNSET


class SpawnResult(msgspec.Struct, frozen=True):
    """The started container and the port where it listens.

    ``enforces_deadline``: the executor kills the backend at its hard deadline, and takes ``Renew``. Absent from others.
    """

    container_id: str
    port: UInt16
    enforces_deadline: bool | UnsetType = UNSET


class TerminateEvent(msgspec.Struct, frozen=True):
    """A backend's process ended; ``exit_code`` if known."""

    backend_id: str
    exit_code: Int32 | None = None


class UnitOutcome(Variants, frozen=True, kw_only=True):
    """Done (``{"Ok": null}``), or why not."""

    ok: UnsetType | None = UNSET
    err: str | UnsetType = UNSET


class SpawnOutcome(Variants, frozen=True, kw_only=True):
    """Started, or why not."""

    ok: SpawnResult | UnsetType = UNSET
    err: str | UnsetType = UNSET


class TerminateOutcome(Variants, frozen=True, kw_only=True):
    """Whether it was running, or why it could not be ended."""

    ok: bool | UnsetType = UNSET
    err: str | UnsetType = UNSET


class OtherFailure(Variants, frozen=True, kw_only=True):
    """A wait that failed for another reason than time: ``{"Other": text}``."""

    other: str | UnsetType = UNSET


class WaitOutcome(Variants, frozen=True, kw_only=True):
    """Answers HTTP, or ``"StartupTimeout"``, or another failure."""

    ok: UnsetType | None = UNSET
    err: Literal["StartupTimeout"] | OtherFailure | UnsetType = UNSET


class ExecutorRequest(Variants, frozen=True, kw_only=True):
    """What a drone asks."""

    prepare: DockerExecutable | UnsetType = UNSET
    spawn: tuple[str, DockerExecutable, LeasedKey | None, str | None] | UnsetType = UNSET
    terminate: tuple[str, bool] | UnsetType = UNSET
    wait_for_backend: tuple[str, str] | UnsetType = UNSET
    # The backend and its new hard deadline; only for what was started with ``enforces_deadline``.
    renew: tuple[str, int] | UnsetType = UNSET


class ExecutorAnswer(Variants, frozen=True, kw_only=True):
    """What an executor says: the answer to a request, or an event."""

    prepare_result: UnitOutcome | UnsetType = UNSET
    spawn_result: SpawnOutcome | UnsetType = UNSET
    terminate_result: TerminateOutcome | UnsetType = UNSET
    wait_for_backend_result: WaitOutcome | UnsetType = UNSET
    renew_result: UnitOutcome | UnsetType = UNSET
    metrics_message: BackendMetrics | UnsetType = UNSET
    terminate_event: TerminateEvent | UnsetType = UNSET


class ExecutorQuestion(msgspec.Struct, frozen=True):
    """A line from the drone."""

    id: str
    message: ExecutorRequest


class ExecutorLine(msgspec.Struct, frozen=True):
    """A line from the executor; ``id`` is ``None`` for events."""

    id: str | None
    message: ExecutorAnswer


class _Envelope(msgspec.Struct, frozen=True):
    id: str
    message: dict[str, msgspec.Raw]


def refused_request(line: bytes) -> tuple[str, str] | None:
    """Return the id and the kind of a request whose content is not understood; None: it is no request at all."""
    try:
        envelope = codec.decode(line, _Envelope)
    except MessageError:
        return None
    kinds = list(envelope.message)
    return (envelope.id, kinds[0]) if len(kinds) == 1 and kinds[0] in _REFUSALS else None


def kind_of_request(request: ExecutorRequest) -> str:
    """Return the name of the variant that is set."""
    fields = msgspec.structs.fields(request)
    return next(field.encode_name for field in fields if getattr(request, field.name) is not UNSET)


def refusal(kind: str, reason: str) -> ExecutorAnswer:
    """Return the answer to a request of this kind that is not carried out."""
    return _REFUSALS[kind](reason)


_REFUSALS: dict[str, Callable[[str], ExecutorAnswer]] = {
    "Prepare": lambda reason: ExecutorAnswer(prepare_result=UnitOutcome(err=reason)),
    "Spawn": lambda reason: ExecutorAnswer(spawn_result=SpawnOutcome(err=reason)),
    "Terminate": lambda reason: ExecutorAnswer(terminate_result=TerminateOutcome(err=reason)),
    "WaitForBackend": lambda reason: ExecutorAnswer(
        wait_for_backend_result=WaitOutcome(err=OtherFailure(other=reason))
    ),
    "Renew": lambda reason: ExecutorAnswer(renew_result=UnitOutcome(err=reason)),
}
