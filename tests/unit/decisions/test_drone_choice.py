"""Which drone gets a new backend?"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.drone_choice import DroneCandidate, DroneHand
from plane.protocol.times import DroneTime


def candidate(number: int, count: int) -> DroneCandidate:
    return DroneCandidate(drone_id=number, name=f"dr-{number}", local_time=DroneTime(0), backend_count=count)


def test_none_of_none() -> None:
    assert DroneHand([]).deal(2) is None


@given(st.lists(st.integers(0, 5), min_size=1))
def test_the_first_of_those_with_the_fewest_backends(counts: list[int]) -> None:
    hand = DroneHand([candidate(number, count) for number, count in enumerate(counts)])
    assert hand.deal(len(counts)) == candidate(counts.index(min(counts)), min(counts))


@given(st.integers(1, 10), st.integers(1, 5), st.integers(0, 200))
def test_requests_that_are_answered_together_spread_over_equal_drones(drones: int, best_of: int, requests: int) -> None:
    hand = DroneHand([candidate(number, 7) for number in range(drones)])
    given_to = Counter(drone.drone_id for _ in range(requests) if (drone := hand.deal(best_of)) is not None)
    assert given_to.total() == requests
    if best_of >= drones:
        assert max(given_to.values(), default=0) - min((given_to[n] for n in range(drones)), default=0) <= 1


def test_each_request_sees_other_drones_than_the_one_before() -> None:
    hand = DroneHand([candidate(number, count) for number, count in enumerate([0, 1, 9, 8])])
    assert [drone.drone_id for _ in range(3) if (drone := hand.deal(2)) is not None] == [0, 3, 0]
