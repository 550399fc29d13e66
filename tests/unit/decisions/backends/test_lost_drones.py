"""Which suspect backends are marked as lost, terminated or sent to their drone again."""

from __future__ import annotations

from typing import Any

import pytest

from plane.decisions.backends.lost_drones import (
    ReapAction,
    SuspectBackend,
    classify,
    is_uncertain_end,
    lost_state,
)
from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    Ready,
    Terminated,
    TerminationKind,
    TerminationReason,
)

SCHEDULED, READY = BackendStatus.SCHEDULED, BackendStatus.READY


def suspect(**changes: Any) -> SuspectBackend:
    usual: dict[str, Any] = {
        "backend_id": "b",
        "drone_id": 1,
        "status": READY,
        "drone_silent_s": 3.0,
        "in_status_s": 3.0,
        "past_hard_deadline": False,
        "spawn_acknowledged": True,
    }
    return SuspectBackend(**usual | changes)


@pytest.mark.parametrize(
    ("backend", "action"),
    [
        (suspect(), ReapAction.WAIT),
        (suspect(drone_silent_s=120.0), ReapAction.WAIT),
        (suspect(drone_silent_s=120.1), ReapAction.MARK_LOST),
        (suspect(drone_silent_s=120.1, status=SCHEDULED), ReapAction.MARK_LOST),
        (suspect(drone_silent_s=float("inf"), status=SCHEDULED), ReapAction.MARK_LOST),
        # Only `scheduled` has a limit of its own: a large image may take long to load.
        (suspect(in_status_s=10_000, past_hard_deadline=True), ReapAction.WAIT),
        (suspect(in_status_s=10_000, status=BackendStatus.LOADING), ReapAction.WAIT),
        (suspect(in_status_s=60.0, status=SCHEDULED), ReapAction.WAIT),
        (suspect(in_status_s=60.1, status=SCHEDULED), ReapAction.RESEND),
        (suspect(in_status_s=60.1, status=SCHEDULED, spawn_acknowledged=False), ReapAction.WAIT),
        (suspect(in_status_s=60.1, status=SCHEDULED, past_hard_deadline=True), ReapAction.MARK_LOST),
        (
            suspect(in_status_s=60.1, status=SCHEDULED, past_hard_deadline=True, spawn_acknowledged=False),
            ReapAction.MARK_LOST,
        ),
        # Its key is gone and its drone is alive: the drone has ended it, or does not know it.
        (suspect(key_gone=True, past_hard_deadline=True), ReapAction.TERMINATE),
        (suspect(key_gone=True, past_hard_deadline=True, status=SCHEDULED), ReapAction.TERMINATE),
        (suspect(key_gone=True, past_hard_deadline=True, end_ordered_s=50.0), ReapAction.TERMINATE),
        (suspect(key_gone=True, past_hard_deadline=True, end_ordered_s=50.1), ReapAction.MARK_LOST),
        (suspect(key_gone=True, past_hard_deadline=True, drone_silent_s=120.1), ReapAction.MARK_LOST),
    ],
)
def test_a_suspect_backend_is_classified(backend: SuspectBackend, action: ReapAction) -> None:
    assert classify(backend) is action


def test_a_lost_backend_has_a_message_with_the_reason() -> None:
    state = lost_state(suspect(drone_silent_s=130.2))
    assert (state.last_status, state.reason, state.termination) == (READY, TerminationReason.LOST, None)
    assert state.message == "its drone has sent nothing for 130 s"
    unended = suspect(key_gone=True, past_hard_deadline=True, end_ordered_s=60.0)
    assert lost_state(unended).message == "its key has expired, and its drone does not report that it has ended"
    stuck = suspect(status=SCHEDULED, in_status_s=61.0, past_hard_deadline=True)
    assert lost_state(stuck).message == "its drone has not started it within 61 s"


@pytest.mark.parametrize(
    ("state", "uncertain"),
    [
        (Terminated(last_status=READY, reason=TerminationReason.LOST), True),
        # The drone has ended it itself, when it stopped for example.
        (Terminated(last_status=READY, reason=TerminationReason.LOST, termination=TerminationKind.SOFT), False),
        (Terminated(last_status=READY, exit_code=0), False),
        (Ready(address="127.0.0.1:1"), False),
    ],
)
def test_only_the_end_of_a_backend_that_its_drone_does_not_know_is_uncertain(
    state: BackendState, uncertain: bool
) -> None:
    assert is_uncertain_end(state) is uncertain
