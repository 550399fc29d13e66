"""Which drone gets a new backend?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.drone_choice import DroneCandidate, choose_drone
from plane.protocol.times import DroneTime


def candidate(number: int, count: int) -> DroneCandidate:
    return DroneCandidate(drone_id=number, name=f"dr-{number}", local_time=DroneTime(0), backend_count=count)


def test_none_of_none() -> None:
    assert choose_drone([]) is None


@given(st.lists(st.integers(0, 5), min_size=1))
def test_the_first_of_those_with_the_fewest_backends(counts: list[int]) -> None:
    chosen = choose_drone([candidate(number, count) for number, count in enumerate(counts)])
    assert chosen == candidate(counts.index(min(counts)), min(counts))
