"""Which backends a sweep terminates, and when the next sweep is due."""

from __future__ import annotations

import pytest

from plane.decisions.backends.idle_sweep import SHORTEST_WAIT_S, SweepCandidate, sweep
from plane.timing import SWEEP_INTERVAL_S


def candidate(backend: str, due_in_s: float) -> SweepCandidate:
    return SweepCandidate(backend, 1, due_in_s)


def test_due_and_overdue_backends_are_terminated() -> None:
    candidates = [candidate("overdue", -3.0), candidate("due", 0.0), candidate("later", 2.0)]
    due, _ = sweep(candidates)
    assert [each.backend_id for each in due] == ["overdue", "due"]


@pytest.mark.parametrize(
    ("due_in_s", "wait_s"),
    [
        ([], SWEEP_INTERVAL_S),
        ([-1.0], SWEEP_INTERVAL_S),
        ([3.0, 1.5], 1.5),
        ([-1.0, 4.0], 4.0),
        ([0.001], SHORTEST_WAIT_S),
    ],
)
def test_the_next_sweep_is_due_with_the_next_backend(due_in_s: list[float], wait_s: float) -> None:
    _, wait = sweep([candidate(str(number), each) for number, each in enumerate(due_in_s)])
    assert wait == wait_s
