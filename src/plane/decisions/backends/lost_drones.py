"""Which backends has nobody to end them any more, and what becomes of each? `plane.controller.upkeep.reaper` does it.

Rule: A7 of page 7. The database computes all ages, since only its clock counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from plane.protocol.backend_state import BackendStatus, Terminated, TerminationReason
from plane.timing import DRONE_LOST_AFTER_S, SCHEDULED_TIMEOUT_S, UNTERMINATED_LOST_AFTER_S

__all__ = ["ReapAction", "SuspectBackend", "classify", "lost"]


@dataclass(frozen=True, slots=True)
class SuspectBackend:
    """A backend that is not terminated, and what may be wrong with it.

    Attributes:
        drone_silent_s: since the drone's last heartbeat, or since it registered if there was none.
        in_status_s: since its last status.
        past_hard_deadline: its key's lease is over on the drone too, or it has no key any more.
        spawn_acknowledged: the drone has said that it applied the spawn action.
        key_gone: its key's lease has been over for a while, or it has no key any more.
        end_ordered_s: since its drone was first ordered to end it for that; None: it was not.
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
    """What becomes of a doubtful backend.

    ``LOST``: it is terminated, and its key is free. ``SEND_AGAIN``: its drone gets the spawn action once more.
    ``END``: its drone is ordered to end it, and says so also of one that it does not know. ``WAIT``: nothing is to be
    done yet, or others do it.
    """

    LOST = enum.auto()
    SEND_AGAIN = enum.auto()
    END = enum.auto()
    WAIT = enum.auto()


def classify(backend: SuspectBackend) -> ReapAction:
    """What becomes of ``backend``.

    A drone that lives has ended what is past its key's hard deadline by itself, so the key may be given away.
    """
    if backend.drone_silent_s > DRONE_LOST_AFTER_S:
        return ReapAction.LOST
    scheduled_too_long = backend.status is BackendStatus.SCHEDULED and backend.in_status_s > SCHEDULED_TIMEOUT_S
    if scheduled_too_long and backend.past_hard_deadline:
        return ReapAction.LOST
    if backend.key_gone:
        unended = backend.end_ordered_s is not None and backend.end_ordered_s > UNTERMINATED_LOST_AFTER_S
        return ReapAction.LOST if unended else ReapAction.END
    if not scheduled_too_long:
        return ReapAction.WAIT
    # What is not acknowledged is sent again by the controller of its drone anyway.
    return ReapAction.SEND_AGAIN if backend.spawn_acknowledged else ReapAction.WAIT


def lost(backend: SuspectBackend) -> Terminated:
    """The state of a backend that is given up, with the reason in words (A21)."""
    if backend.drone_silent_s > DRONE_LOST_AFTER_S:
        why = f"its drone has not been heard of for {backend.drone_silent_s:.0f} s"
    elif backend.status is not BackendStatus.SCHEDULED:
        why = "its key has expired, and its drone does not say that it has ended"
    else:
        why = f"its drone has not started it within {backend.in_status_s:.0f} s"
    return Terminated(last_status=backend.status, reason=TerminationReason.LOST, message=why)
