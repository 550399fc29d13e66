"""Which drone gets a new backend?"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.drone_selection import (
    COUNT_HOLDS_S,
    FORGOTTEN_AFTER_S,
    BackendCounts,
    DroneCandidate,
    DroneHand,
)
from plane.protocol.times import DroneTime


def hand(*backends: int) -> DroneHand:
    """Drones 0, 1, … that have so many backends."""
    counts = BackendCounts()
    for number, count in enumerate(backends):
        counts.counted(number, count, 0.0)
    return DroneHand([candidate(number) for number in range(len(backends))], counts)


def candidate(number: int) -> DroneCandidate:
    return DroneCandidate(drone_id=number, name=f"dr-{number}", local_time=DroneTime(0))


def test_none_of_none() -> None:
    assert hand().deal(2) is None


@given(st.lists(st.integers(0, 5), min_size=1))
def test_the_first_of_those_with_the_fewest_backends(counts: list[int]) -> None:
    assert hand(*counts).deal(len(counts)) == candidate(counts.index(min(counts)))


@given(st.integers(1, 10), st.integers(1, 5), st.integers(0, 200))
def test_requests_that_are_answered_together_spread_over_equal_drones(drones: int, best_of: int, requests: int) -> None:
    equal = hand(*[7] * drones)
    given_to = Counter(drone.drone_id for _ in range(requests) if (drone := equal.deal(best_of)) is not None)
    assert given_to.total() == requests
    if best_of >= drones:
        assert max(given_to.values(), default=0) - min((given_to[n] for n in range(drones)), default=0) <= 1


def test_each_request_sees_other_drones_than_the_one_before() -> None:
    unequal = hand(0, 1, 9, 8)
    assert [drone.drone_id for _ in range(3) if (drone := unequal.deal(2)) is not None] == [0, 3, 0]


def test_a_count_holds_for_a_while_and_grows_with_what_is_given() -> None:
    counts = BackendCounts()
    counts.counted(1, 5, 10.0)
    counts.one_more(1)
    counts.one_more(2)
    assert (counts.of(1), counts.of(2)) == (6, 0)
    assert counts.recent(10.0 + COUNT_HOLDS_S / 2) == [1]
    assert counts.recent(10.0 + COUNT_HOLDS_S) == []
    # A batch that was asked just before still knows it.
    assert counts.of(1) == 6
    counts.counted(1, 3, 12.0)
    assert counts.of(1) == 3
    assert counts.recent(12.0 + FORGOTTEN_AFTER_S + 1) == []
    assert counts.of(1) == 0
