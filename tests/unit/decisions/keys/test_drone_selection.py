"""Selection of a drone among candidates, and the counts that it relies on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.drone_selection import (
    COUNT_RETENTION_S,
    COUNT_VALID_S,
    BackendCounts,
    DroneCandidate,
    DroneSelector,
)
from plane.protocol.times import DroneTime


def selector(*backends: int) -> DroneSelector:
    """Return a selector among drones 0, 1, … that have so many backends."""
    counts = BackendCounts()
    for number, count in enumerate(backends):
        counts.record(number, count, 0.0)
    return DroneSelector([candidate(number) for number in range(len(backends))], counts)


def candidate(number: int) -> DroneCandidate:
    return DroneCandidate(drone_id=number, name=f"dr-{number}", local_time=DroneTime(0))


def test_no_drone_is_chosen_among_none() -> None:
    assert selector().choose(2) is None


@given(st.lists(st.integers(0, 5), min_size=1))
def test_first_drone_with_the_fewest_backends_is_chosen(counts: list[int]) -> None:
    assert selector(*counts).choose(len(counts)) == candidate(counts.index(min(counts)))


@given(st.integers(1, 10), st.integers(1, 5), st.integers(0, 200))
def test_requests_of_one_batch_spread_over_equal_drones(drones: int, best_of: int, requests: int) -> None:
    equal = selector(*[7] * drones)
    given_to = Counter(drone.drone_id for _ in range(requests) if (drone := equal.choose(best_of)) is not None)
    assert given_to.total() == requests
    if best_of >= drones:
        assert max(given_to.values(), default=0) - min((given_to[n] for n in range(drones)), default=0) <= 1


def test_each_request_considers_other_drones_than_the_previous_one() -> None:
    unequal = selector(0, 1, 9, 8)
    assert [drone.drone_id for _ in range(3) if (drone := unequal.choose(2)) is not None] == [0, 3, 0]


def test_count_is_valid_for_a_while_and_grows_with_assigned_backends() -> None:
    counts = BackendCounts()
    counts.record(1, 5, 10.0)
    counts.increment(1)
    counts.increment(2)
    assert (counts.of(1), counts.of(2)) == (6, 0)
    assert counts.recently_counted(10.0 + COUNT_VALID_S / 2) == [1]
    assert counts.recently_counted(10.0 + COUNT_VALID_S) == []
    # A batch that was queried just before still uses it.
    assert counts.of(1) == 6
    counts.record(1, 3, 12.0)
    assert counts.of(1) == 3
    assert counts.recently_counted(12.0 + COUNT_RETENTION_S + 1) == []
    assert counts.of(1) == 0
