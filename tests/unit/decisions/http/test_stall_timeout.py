"""Which side is blamed for a request that stalls."""

from __future__ import annotations

import pytest

from plane.decisions.http.stall_timeout import StallAction, stall_action


@pytest.mark.parametrize(
    ("with_backend", "begun", "ended", "reads", "expected"),
    [
        (True, False, False, True, StallAction.CLIENT_IS_SLOW),
        (True, False, False, False, StallAction.BACKEND_IS_SLOW),
        (True, True, False, True, StallAction.CUT),
        (True, False, True, True, StallAction.CUT),
        (False, False, False, True, StallAction.CUT),
    ],
)
def test_a_stalled_request_blames_the_side_that_stalls(
    *, with_backend: bool, begun: bool, ended: bool, reads: bool, expected: StallAction
) -> None:
    action = stall_action(with_backend=with_backend, response_begun=begun, client_ended=ended, backend_reads=reads)
    assert action is expected


def test_a_backend_that_stops_within_its_response_head_is_to_blame() -> None:
    action = stall_action(
        with_backend=True, response_begun=False, client_ended=False, backend_reads=True, response_head_begun=True
    )
    assert action is StallAction.BACKEND_IS_SLOW
