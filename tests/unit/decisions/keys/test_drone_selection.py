"""Selection of a drone among candidates, and for how long they are valid."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.drone_selection import CANDIDATES_VALID_S, CountedDrone, DroneCandidate, DroneCandidates
from plane.protocol.times import DroneTime


def drones(*backends: int, are_all: bool = True) -> DroneCandidates:
    """Return drones 0, 1, … that have so many backends."""
    counted = [CountedDrone(candidate(number), count) for number, count in enumerate(backends)]
    return DroneCandidates(counted, 10.0, are_all=are_all)


def candidate(number: int) -> DroneCandidate:
    return DroneCandidate(drone_id=number, name=f"dr-{number}", local_time=DroneTime(0))


def test_no_drone_is_chosen_among_none() -> None:
    assert drones().choose(2) is None


@given(st.lists(st.integers(0, 5), min_size=1))
def test_first_drone_with_the_fewest_backends_is_chosen(counts: list[int]) -> None:
    assert drones(*counts).choose(len(counts)) == candidate(counts.index(min(counts)))


@given(st.integers(1, 10), st.integers(1, 5), st.integers(0, 200))
def test_requests_spread_over_equal_drones(number: int, best_of: int, requests: int) -> None:
    equal = drones(*[7] * number)
    given_to = Counter(drone.drone_id for _ in range(requests) if (drone := equal.choose(best_of)) is not None)
    assert given_to.total() == requests
    if best_of >= number:
        assert max(given_to.values(), default=0) - min((given_to[n] for n in range(number)), default=0) <= 1


def test_each_request_considers_other_drones_than_the_previous_one() -> None:
    unequal = drones(0, 1, 9, 8)
    assert [drone.drone_id for _ in range(3) if (drone := unequal.choose(2)) is not None] == [0, 3, 0]


def test_candidates_are_valid_for_a_moment() -> None:
    assert drones(1).are_valid(10.0 + CANDIDATES_VALID_S / 2)
    assert not drones(1).are_valid(10.0 + CANDIDATES_VALID_S)


def test_some_of_many_drones_are_considered_once() -> None:
    # A burst of new keys would otherwise start on a few drones of a large cluster.
    some, everyone = drones(1, 2, 3, 4, are_all=False), drones(1, 2, 3, 4)
    for _ in range(2):
        assert some.are_valid(10.0)
        some.choose(2)
        everyone.choose(2)
    assert not some.are_valid(10.0)
    assert everyone.are_valid(10.0)


def test_absence_of_drones_is_not_remembered() -> None:
    # The first drone of a cluster gets backends as soon as it has connected.
    assert not drones().are_valid(10.0)
