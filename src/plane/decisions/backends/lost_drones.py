"""Decide what to do with backends whose drone is lost, stuck, or does not terminate them.

`plane.controller.upkeep.reaper` does it. The database computes all ages, since only its clock counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from plane.protocol.backend_state import BackendState, BackendStatus, Terminated, TerminationReason
from plane.timing import DRONE_LOST_AFTER_S, SCHEDULED_TIMEOUT_S, UNTERMINATED_LOST_AFTER_S

__all__ = ["ReapAction", "SuspectBackend", "classify", "is_uncertain_end", "lost_state"]


@dataclass(frozen=True, slots=True)
class SuspectBackend:
    """A backend that is not terminated and may be lost.

    Attributes:
        drone_silent_s: seconds since the drone's last heartbeat, or since its registration if there was none.
        in_status_s: seconds since its last status.
        past_hard_deadline: whether its lease has passed the drone's hard deadline, or it has no key any more.
        spawn_acknowledged: whether the drone has acknowledged the spawn action.
        key_gone: whether its lease expired a while ago, or it has no key any more.
        end_ordered_s: seconds since its drone was first ordered to terminate it for that; None: not ordered.
    """

    backend_id: str
    drone_id: int
    status: BackendStatus
    drone_silent_s: float
    in_status_s: float
    past_hard_deadline: bool
    spawn_acknowledged: bool
    key_gone: bool = False
    end_ordered_s: float | None = None


class ReapAction(enum.Enum):
    """What to do with a suspect backend.

    ``MARK_LOST``: mark it as terminated and free its key. ``RESEND``: send the spawn action to its drone again.
    ``TERMINATE``: order its drone to terminate it; a drone reports the end also of a backend that it does not know.
    ``WAIT``: nothing is due yet.
    """

    MARK_LOST = enum.auto()
    RESEND = enum.auto()
    TERMINATE = enum.auto()
    WAIT = enum.auto()


def classify(backend: SuspectBackend) -> ReapAction:
    """Return what to do with a backend.

    A live drone has killed each backend that is past its hard deadline, so the key of such a backend may be freed.
    """
    if backend.drone_silent_s > DRONE_LOST_AFTER_S:
        return ReapAction.MARK_LOST
    scheduled_too_long = backend.status is BackendStatus.SCHEDULED and backend.in_status_s > SCHEDULED_TIMEOUT_S
    if scheduled_too_long and backend.past_hard_deadline:
        return ReapAction.MARK_LOST
    if backend.key_gone:
        unended = backend.end_ordered_s is not None and backend.end_ordered_s > UNTERMINATED_LOST_AFTER_S
        return ReapAction.MARK_LOST if unended else ReapAction.TERMINATE
    if not scheduled_too_long:
        return ReapAction.WAIT
    # The controller of the drone resends actions that are not acknowledged.
    return ReapAction.RESEND if backend.spawn_acknowledged else ReapAction.WAIT


def is_uncertain_end(state: BackendState) -> bool:
    """Return whether a drone reports the end of a backend that it does not know.

    Another drone, which had the same name before and is cut off, may still run its process for the rest of the lease.
    """
    return isinstance(state, Terminated) and state.reason is TerminationReason.LOST and state.termination is None


def lost_state(backend: SuspectBackend) -> Terminated:
    """Return the state of a backend that is given up, with a message that says why."""
    if backend.drone_silent_s > DRONE_LOST_AFTER_S:
        reason = f"its drone has sent nothing for {backend.drone_silent_s:.0f} s"
    elif backend.status is not BackendStatus.SCHEDULED:
        reason = "its key has expired, and its drone does not report that it has ended"
    else:
        reason = f"its drone has not started it within {backend.in_status_s:.0f} s"
    return Terminated(last_status=backend.status, reason=TerminationReason.LOST, message=reason)
