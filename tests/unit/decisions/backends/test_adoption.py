"""What a restarted drone does with a backend that its former process left."""

from __future__ import annotations

import pytest

from plane.decisions.backends.adoption import AdoptionAction, decide_adoption
from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    HardTerminating,
    Loading,
    Ready,
    Scheduled,
    Starting,
    Terminating,
    TerminationReason,
    Waiting,
)

NOT_STARTED: list[BackendState] = [Scheduled(), Loading(), Starting()]
STARTED: list[BackendState] = [
    Waiting(address="127.0.0.1:1"),
    Ready(address="127.0.0.1:1"),
    Terminating(last_status=BackendStatus.READY, reason=TerminationReason.EXTERNAL),
    HardTerminating(last_status=BackendStatus.READY, reason=TerminationReason.EXTERNAL),
]


@pytest.mark.parametrize("state", STARTED)
def test_a_running_backend_is_resumed_if_its_lease_is_known(state: BackendState) -> None:
    assert decide_adoption(state, running=True, lease_known=True) is AdoptionAction.RESUME
    assert decide_adoption(state, running=True, lease_known=False) is AdoptionAction.TERMINATE
    for lease_known in (True, False):
        assert decide_adoption(state, running=False, lease_known=lease_known) is AdoptionAction.MARK_TERMINATED


@pytest.mark.parametrize("state", NOT_STARTED)
def test_a_backend_that_was_not_started_for_certain_is_restarted(state: BackendState) -> None:
    assert decide_adoption(state, running=False, lease_known=True) is AdoptionAction.RESTART
    assert decide_adoption(state, running=False, lease_known=False) is AdoptionAction.MARK_TERMINATED
