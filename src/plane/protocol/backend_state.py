"""The state of a backend, as nodes and the database store it, and as the public API shows it.

The transitions are in `plane.decisions.backends.lifecycle`.
"""

from __future__ import annotations

import enum
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.codec import Int32
from plane.protocol.times import DbTime

__all__ = [
    "OUTPUT_MARKER",
    "BackendState",
    "BackendStatus",
    "BackendStatusStreamEntry",
    "HardTerminating",
    "Loading",
    "Ready",
    "Scheduled",
    "Starting",
    "Terminated",
    "Terminating",
    "TerminationKind",
    "TerminationReason",
    "Waiting",
    "public_entry",
    "state_from_builtins",
    "state_from_json",
    "status_entry",
]


class BackendStatus(enum.StrEnum):
    """The status of a backend. `number` orders the statuses; a backend's status only rises."""

    SCHEDULED = "scheduled"
    LOADING = "loading"
    STARTING = "starting"
    WAITING = "waiting"
    READY = "ready"
    TERMINATING = "terminating"
    HARD_TERMINATING = "hard-terminating"
    TERMINATED = "terminated"

    @property
    def number(self) -> int:
        """The number stored in ``backend.last_status_number``."""
        return _NUMBERS[self]


_NUMBERS = {
    BackendStatus.SCHEDULED: 10,
    BackendStatus.LOADING: 20,
    BackendStatus.STARTING: 30,
    BackendStatus.WAITING: 40,
    BackendStatus.READY: 50,
    BackendStatus.TERMINATING: 60,
    BackendStatus.HARD_TERMINATING: 65,
    BackendStatus.TERMINATED: 70,
}


class TerminationKind(enum.StrEnum):
    """How a backend is terminated: gracefully, or by a kill."""

    SOFT = "soft"
    HARD = "hard"


class TerminationReason(enum.StrEnum):
    """Why a backend is terminated."""

    SWEPT = "swept"
    EXTERNAL = "external"
    KEY_EXPIRED = "keyexpired"
    LOST = "lost"
    STARTUP_TIMEOUT = "startuptimeout"
    INTERNAL_ERROR = "internalerror"


class _State(msgspec.Struct, frozen=True, kw_only=True, tag_field="status"):
    """Base of the states; ``status`` is the tag."""

    @property
    def status(self) -> BackendStatus:
        """The state's status."""
        return BackendStatus(str(self.__struct_config__.tag))


class Scheduled(_State, frozen=True, kw_only=True, tag="scheduled"):
    """Assigned to a drone."""


class Loading(_State, frozen=True, kw_only=True, tag="loading"):
    """The drone is preparing the executable (pulling the image)."""


class Starting(_State, frozen=True, kw_only=True, tag="starting"):
    """The drone is starting the process."""


class Waiting(_State, frozen=True, kw_only=True, tag="waiting"):
    """The process is running, but does not respond to HTTP yet. ``address`` is ``IP:PORT``."""

    address: str


class Ready(_State, frozen=True, kw_only=True, tag="ready"):
    """The process responds to HTTP at ``address`` (``IP:PORT``)."""

    address: str


class Terminating(_State, frozen=True, kw_only=True, tag="terminating"):
    """The process received the signal to stop."""

    last_status: BackendStatus
    reason: TerminationReason
    termination: Literal["soft"] = "soft"


class HardTerminating(_State, frozen=True, kw_only=True, tag="hard-terminating"):
    """The process is being killed."""

    last_status: BackendStatus
    reason: TerminationReason


class Terminated(_State, frozen=True, kw_only=True, tag="terminated"):
    """The process has ended. ``message`` explains a failure; Plane 0.5.5 has no such field."""

    last_status: BackendStatus
    termination: TerminationKind | None = None
    reason: TerminationReason | None = None
    exit_code: Int32 | None = None
    message: str | UnsetType | None = UNSET


BackendState = Scheduled | Loading | Starting | Waiting | Ready | Terminating | HardTerminating | Terminated


def state_from_json(data: bytes | str) -> BackendState:
    """Decode a state.

    Raises:
        MessageError
    """
    return codec.decode(data, _ANY_STATE)


def state_from_builtins(value: Any) -> BackendState:
    """Convert a state from dicts and scalars.

    Raises:
        MessageError
    """
    return codec.convert(value, _ANY_STATE)


# For a type checker a union is not a type[T], although the codec accepts it.
_ANY_STATE = cast("type[BackendState]", BackendState)


class BackendStatusStreamEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A state without the address. ``time`` is when the database stored it.

    ``message`` explains why a backend ended. Only callers with the role ``read`` get the last lines of its output too.
    """

    status: BackendStatus
    time: DbTime
    termination_reason: TerminationReason | UnsetType | None = UNSET
    termination_kind: TerminationKind | UnsetType | None = UNSET
    exit_error: bool | UnsetType | None = UNSET
    message: str | UnsetType | None = UNSET


# Runtimes append this and the last lines of the backend's output to the message of its termination.
OUTPUT_MARKER = "; its last output:\n"


def public_entry(state: BackendState, time: DbTime) -> BackendStatusStreamEntry:
    """Return ``state`` as the public API shows it: with the reason, but without the backend's output."""
    entry = status_entry(state, time)
    if not isinstance(entry.message, str):
        return entry
    # The reason has one line; further ones are from an external executor or an engine.
    reason = entry.message.partition(OUTPUT_MARKER)[0].partition("\n")[0]
    return msgspec.structs.replace(entry, message=reason)


def status_entry(state: BackendState, time: DbTime) -> BackendStatusStreamEntry:
    """Return ``state``, which the database stored at ``time``, with its whole message."""
    reason: TerminationReason | UnsetType = UNSET
    kind: TerminationKind | UnsetType = UNSET
    exit_error: bool | UnsetType = UNSET
    message: str | UnsetType = UNSET
    match state:
        case Terminating():
            reason, kind = state.reason, TerminationKind.SOFT
        case HardTerminating():
            reason, kind = state.reason, TerminationKind.HARD
        case Terminated():
            reason, kind = state.reason or UNSET, state.termination or UNSET
            exit_error = state.exit_code is not None and state.exit_code != 0
            message = state.message or UNSET
        case _:
            pass
    return BackendStatusStreamEntry(
        status=state.status,
        time=time,
        termination_reason=reason,
        termination_kind=kind,
        exit_error=exit_error,
        message=message,
    )
