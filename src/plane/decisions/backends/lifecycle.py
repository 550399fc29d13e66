"""The lifecycle of a backend: the work of each state, and the states that follow.

`LIFECYCLE` is the table, from which the diagram in docs/internals/architecture.md is generated. The functions compute
the states with their fields. `plane.drone.backend_runner` does the work. Rules: `docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from msgspec import UNSET

from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    HardTerminating,
    Terminated,
    Terminating,
    TerminationKind,
    TerminationReason,
)

__all__ = ["LIFECYCLE", "Step", "Work", "to_hard_terminating", "to_terminated", "to_terminating"]


class Work(enum.StrEnum):
    """What a drone does in a state. Entering the next state cancels it."""

    NONE = "nothing"
    PREPARE = "prepare the executable (pull the image)"
    SPAWN = "start the process"
    PROBE = "probe it by HTTP until it responds"
    STOP = "ask it to stop, kill it after the grace period"
    KILL = "kill it"
    RELEASE = "release its key"


@dataclass(frozen=True, slots=True)
class Step:
    """The work of a state, and the states that follow its success and failure.

    None means that the state waits for an order or the exit of the process.
    """

    work: Work
    done: BackendStatus | None = None
    failed: BackendStatus | None = None


LIFECYCLE = {
    BackendStatus.SCHEDULED: Step(Work.NONE, BackendStatus.LOADING),
    BackendStatus.LOADING: Step(Work.PREPARE, BackendStatus.STARTING, BackendStatus.TERMINATED),
    BackendStatus.STARTING: Step(Work.SPAWN, BackendStatus.WAITING, BackendStatus.TERMINATED),
    BackendStatus.WAITING: Step(Work.PROBE, BackendStatus.READY, BackendStatus.HARD_TERMINATING),
    BackendStatus.READY: Step(Work.NONE),
    # Done means that it was not running. If it was, its exit leads to `terminated`.
    BackendStatus.TERMINATING: Step(Work.STOP, BackendStatus.TERMINATED),
    BackendStatus.HARD_TERMINATING: Step(Work.KILL, BackendStatus.TERMINATED),
    BackendStatus.TERMINATED: Step(Work.RELEASE),
}


def to_terminating(state: BackendState, reason: TerminationReason) -> BackendState:
    """Return the state after an order to stop. A state that is as late or later is returned unchanged."""
    if state.status.number >= BackendStatus.TERMINATING.number:
        return state
    return Terminating(last_status=state.status, reason=reason)


def to_hard_terminating(state: BackendState, reason: TerminationReason) -> BackendState:
    """Return the state after an order to kill. A state that is as late or later is returned unchanged.

    The status before any termination is preserved.
    """
    if state.status.number >= BackendStatus.HARD_TERMINATING.number:
        return state
    last_status = state.last_status if isinstance(state, Terminating) else state.status
    return HardTerminating(last_status=last_status, reason=reason)


def to_terminated(
    state: BackendState,
    exit_code: int | None = None,
    message: str | None = None,
    reason: TerminationReason | None = None,
) -> BackendState:
    """Return the state after the exit.

    Args:
        reason: why the backend ended without an order; the reason of an order takes precedence.
    """
    if isinstance(state, Terminated):
        return state
    kind = None
    last_status = state.status
    if isinstance(state, Terminating | HardTerminating):
        kind = TerminationKind.SOFT if isinstance(state, Terminating) else TerminationKind.HARD
        last_status, reason = state.last_status, state.reason
    return Terminated(
        last_status=last_status,
        termination=kind,
        reason=reason,
        exit_code=exit_code,
        message=UNSET if message is None else message,
    )
