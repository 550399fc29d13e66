"""When the next sweep is."""

from __future__ import annotations

from plane.decisions.backends.idle_sweep import SweepCandidate, sweep
from plane.timing import SWEEP_INTERVAL_S


def test_the_next_sweep_is_when_the_next_backend_is_due() -> None:
    assert sweep([]) == ([], SWEEP_INTERVAL_S)
    due, later = SweepCandidate("a", 1, -1.0), SweepCandidate("b", 2, 2.5)
    assert sweep([due, later]) == ([due], 2.5)
    assert sweep([SweepCandidate("b", 2, 0.001)])[1] > 0.1
