"""The lifecycle's table and transitions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from plane.decisions.backends.lifecycle import LIFECYCLE, to_hard_terminating, to_terminated, to_terminating
from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    HardTerminating,
    Loading,
    Ready,
    Scheduled,
    Starting,
    Terminated,
    Terminating,
    TerminationKind,
    TerminationReason,
    Waiting,
)

EXTERNAL = TerminationReason.EXTERNAL
BELOW_TERMINATING: list[BackendState] = [
    Scheduled(),
    Loading(),
    Starting(),
    Waiting(address="127.0.0.1:1"),
    Ready(address="127.0.0.1:1"),
]


@pytest.mark.parametrize("state", BELOW_TERMINATING)
def test_a_soft_order_leads_to_terminating(state: BackendState) -> None:
    ending = to_terminating(state, EXTERNAL)
    assert ending == Terminating(last_status=state.status, reason=EXTERNAL)
    assert to_terminated(ending, 0) == Terminated(
        last_status=state.status, termination=TerminationKind.SOFT, reason=EXTERNAL, exit_code=0
    )


@pytest.mark.parametrize("state", BELOW_TERMINATING)
def test_a_hard_order_preserves_the_last_status(state: BackendState) -> None:
    for before in (state, to_terminating(state, TerminationReason.SWEPT)):
        ending = to_hard_terminating(before, EXTERNAL)
        assert ending == HardTerminating(last_status=state.status, reason=EXTERNAL)
        assert to_terminated(ending, 137) == Terminated(
            last_status=state.status, termination=TerminationKind.HARD, reason=EXTERNAL, exit_code=137
        )


def test_an_exit_without_order_has_no_termination_kind() -> None:
    ended = to_terminated(Ready(address="a"), 3, "why")
    assert ended == Terminated(last_status=BackendStatus.READY, exit_code=3, message="why")
    assert to_terminated(Loading()) == Terminated(last_status=BackendStatus.LOADING, message=UNSET)


STEPS = st.sampled_from(
    [
        lambda state: to_terminating(state, EXTERNAL),
        lambda state: to_hard_terminating(state, TerminationReason.KEY_EXPIRED),
        lambda state: to_terminated(state, 1),
    ]
)


@given(st.sampled_from(BELOW_TERMINATING), st.lists(STEPS, max_size=6))
def test_transitions_never_lead_to_an_earlier_state(state: BackendState, steps: list[object]) -> None:
    for step in steps:
        following = step(state)  # type: ignore[operator]
        assert following == state or following.status.number > state.status.number
        state = following


def test_the_table_is_complete_and_leads_to_later_states_only() -> None:
    assert set(LIFECYCLE) == set(BackendStatus)
    for status, step in LIFECYCLE.items():
        for following in (step.done, step.failed):
            assert following is None or following.number > status.number


def test_the_diagram_in_the_documentation_matches_the_table() -> None:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> scheduled"]
    for status, step in LIFECYCLE.items():
        name = status.replace("-", "_")
        for following, how in ((step.done, "done"), (step.failed, "failed")):
            if following is not None:
                lines.append(f"    {name} --> {following.replace('-', '_')}: {how}")
    lines += ["    terminated --> [*]", "```"]
    page = (Path(__file__).parents[4] / "docs" / "concepts" / "backends.md").read_text()
    assert "\n".join(lines) in page
