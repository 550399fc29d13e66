"""Decide what a restarted drone does with a backend that its store does not show as terminated.

`plane.drone.backend_manager` queries the runtime for what still runs and carries out the decision. Reasons:
docs/decisions/0004-readoption.md.
"""

from __future__ import annotations

import enum

from plane.protocol.backend_state import BackendState, BackendStatus

__all__ = ["AdoptionAction", "decide_adoption", "was_started"]


class AdoptionAction(enum.Enum):
    """What the drone does with the backend."""

    RESUME = "its process runs: continue where the former drone stopped"
    RESTART = "it was not started for certain: remove what may run, and do the work of its state again"
    TERMINATE = "its process runs, but the deadlines of its lease are unknown: terminate it softly"
    MARK_TERMINATED = "nothing of it runs: record it as terminated"


def was_started(state: BackendState) -> bool:
    """Return whether a process was started for certain, so that the runtime can be queried for it."""
    return state.status.number >= BackendStatus.WAITING.number


def decide_adoption(state: BackendState, *, running: bool, lease_known: bool) -> AdoptionAction:
    """Return what to do with a backend in ``state``.

    Args:
        running: whether its process was found.
        lease_known: whether its spawn order is stored, and the drone's clock, which its deadlines refer to, continues.
    """
    if not was_started(state):
        return AdoptionAction.RESTART if lease_known else AdoptionAction.MARK_TERMINATED
    if not running:
        return AdoptionAction.MARK_TERMINATED
    return AdoptionAction.RESUME if lease_known else AdoptionAction.TERMINATE
