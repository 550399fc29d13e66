"""Which backends are lost, and which are only stuck?"""

from __future__ import annotations

from typing import Any

import pytest

from plane.decisions.backends.lost_drones import ReapAction, SuspectBackend, classify, lost
from plane.protocol.backend_state import BackendStatus, TerminationReason

SCHEDULED, READY = BackendStatus.SCHEDULED, BackendStatus.READY


def doubtful(**changes: Any) -> SuspectBackend:
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
    ("backend", "verdict"),
    [
        (doubtful(), ReapAction.WAIT),
        (doubtful(drone_silent_s=120.0), ReapAction.WAIT),
        (doubtful(drone_silent_s=120.1), ReapAction.LOST),
        (doubtful(drone_silent_s=120.1, status=SCHEDULED), ReapAction.LOST),
        (doubtful(drone_silent_s=float("inf"), status=SCHEDULED), ReapAction.LOST),
        # Only `scheduled` has a limit of its own: a large image may take long to load.
        (doubtful(in_status_s=10_000, past_hard_deadline=True), ReapAction.WAIT),
        (doubtful(in_status_s=10_000, status=BackendStatus.LOADING), ReapAction.WAIT),
        (doubtful(in_status_s=60.0, status=SCHEDULED), ReapAction.WAIT),
        (doubtful(in_status_s=60.1, status=SCHEDULED), ReapAction.SEND_AGAIN),
        (doubtful(in_status_s=60.1, status=SCHEDULED, spawn_acknowledged=False), ReapAction.WAIT),
        (doubtful(in_status_s=60.1, status=SCHEDULED, past_hard_deadline=True), ReapAction.LOST),
        (
            doubtful(in_status_s=60.1, status=SCHEDULED, past_hard_deadline=True, spawn_acknowledged=False),
            ReapAction.LOST,
        ),
        # Its key is gone, and its drone lives: it has ended it, or does not know it.
        (doubtful(key_gone=True, past_hard_deadline=True), ReapAction.END),
        (doubtful(key_gone=True, past_hard_deadline=True, status=SCHEDULED), ReapAction.END),
        (doubtful(key_gone=True, past_hard_deadline=True, end_ordered_s=50.0), ReapAction.END),
        (doubtful(key_gone=True, past_hard_deadline=True, end_ordered_s=50.1), ReapAction.LOST),
        (doubtful(key_gone=True, past_hard_deadline=True, drone_silent_s=120.1), ReapAction.LOST),
    ],
)
def test_verdicts(backend: SuspectBackend, verdict: ReapAction) -> None:
    assert classify(backend) is verdict


def test_what_is_lost_says_why() -> None:
    state = lost(doubtful(drone_silent_s=130.2))
    assert (state.last_status, state.reason, state.termination) == (READY, TerminationReason.LOST, None)
    assert state.message == "its drone has not been heard of for 130 s"
    unended = doubtful(key_gone=True, past_hard_deadline=True, end_ordered_s=60.0)
    assert lost(unended).message == "its key has expired, and its drone does not say that it has ended"
    stuck = doubtful(status=SCHEDULED, in_status_s=61.0, past_hard_deadline=True)
    assert lost(stuck).message == "its drone has not started it within 61 s"
