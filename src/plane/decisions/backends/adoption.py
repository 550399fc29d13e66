"""A drone starts and finds a backend in its store that had not ended: what becomes of it?

`plane.drone.backend_manager` asks the runtime what still runs, and does it. Rule: A8 of page 7.
"""

from __future__ import annotations

import enum

from plane.protocol.backend_state import BackendState, BackendStatus

__all__ = ["Adoption", "adoption", "was_started"]


class Adoption(enum.Enum):
    """What is done with it."""

    GO_ON = "its process runs: go on where the former drone was"
    START_OVER = "it had not been started for certain: remove what there may be, and do the state's work again"
    END = "its process runs, but nobody knows until when its key is held: end it gracefully"
    ENDED = "nothing of it runs: it is terminated"


def was_started(state: BackendState) -> bool:
    """Whether a process had been started for certain, so that the runtime is asked for it."""
    return state.status.number >= BackendStatus.WAITING.number


def adoption(state: BackendState, *, running: bool, lease_known: bool) -> Adoption:
    """What becomes of a backend in ``state``.

    Args:
        running: its process was found.
        lease_known: its order is stored, and the drone's clock, in which its key's deadlines are, has not begun anew.
    """
    if not was_started(state):
        return Adoption.START_OVER if lease_known else Adoption.ENDED
    if not running:
        return Adoption.ENDED
    return Adoption.GO_ON if lease_known else Adoption.END
