"""What is a backend's next state, and what must be done on entering it?

`LIFECYCLE` is the table; the diagram in the documentation is drawn from it. The functions compute the states
with what they carry along. `plane.drone.backend_runner` does the work. Rules: page 2, "BackendState", and
page 4, "Backend lifecycle".
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
    """What a drone does on entering a state. Entering the next one cancels it."""

    NONE = "nothing"
    PREPARE = "prepare the executable (pull the image)"
    SPAWN = "start the process"
    PROBE = "ask it by HTTP until it answers"
    STOP = "ask it to stop, kill it after the grace"
    KILL = "kill it"
    RELEASE = "release its key"


@dataclass(frozen=True, slots=True)
class Step:
    """What is done in a state, and where success and failure lead. None: wait for an order or the exit."""

    work: Work
    done: BackendStatus | None = None
    failed: BackendStatus | None = None


LIFECYCLE = {
    BackendStatus.SCHEDULED: Step(Work.NONE, BackendStatus.LOADING),
    BackendStatus.LOADING: Step(Work.PREPARE, BackendStatus.STARTING, BackendStatus.TERMINATED),
    BackendStatus.STARTING: Step(Work.SPAWN, BackendStatus.WAITING, BackendStatus.TERMINATED),
    BackendStatus.WAITING: Step(Work.PROBE, BackendStatus.READY, BackendStatus.HARD_TERMINATING),
    BackendStatus.READY: Step(Work.NONE),
    # "Done" is: it was not running. If it was, its exit ends it.
    BackendStatus.TERMINATING: Step(Work.STOP, BackendStatus.TERMINATED),
    BackendStatus.HARD_TERMINATING: Step(Work.KILL, BackendStatus.TERMINATED),
    BackendStatus.TERMINATED: Step(Work.RELEASE),
}


def to_terminating(state: BackendState, reason: TerminationReason) -> BackendState:
    """Ask it to stop; a state as late or later stays as it is."""
    if state.status.number >= BackendStatus.TERMINATING.number:
        return state
    return Terminating(last_status=state.status, reason=reason)


def to_hard_terminating(state: BackendState, reason: TerminationReason) -> BackendState:
    """Kill it; a state as late or later stays as it is. The status before any termination is kept."""
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
    """Nothing of it runs any more. ``reason`` is for ends that nobody ordered; an order's own one is kept."""
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
