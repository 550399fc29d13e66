"""What becomes of a backend that a former process of the drone left (A8)."""

from __future__ import annotations

import pytest

from plane.decisions.backends.adoption import Adoption, adoption
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
def test_a8_what_runs_goes_on_if_its_lease_is_known(state: BackendState) -> None:
    assert adoption(state, running=True, lease_known=True) is Adoption.GO_ON
    assert adoption(state, running=True, lease_known=False) is Adoption.END
    for lease_known in (True, False):
        assert adoption(state, running=False, lease_known=lease_known) is Adoption.ENDED


@pytest.mark.parametrize("state", NOT_STARTED)
def test_a8_what_was_not_started_for_certain_begins_again(state: BackendState) -> None:
    assert adoption(state, running=False, lease_known=True) is Adoption.START_OVER
    assert adoption(state, running=False, lease_known=False) is Adoption.ENDED
