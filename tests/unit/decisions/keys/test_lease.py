"""A lease as a script: times and responses in, actions out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.lease import KeyLease, LeaseAction, lease_deadlines
from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime

RENEW, SOFT, HARD = LeaseAction.RENEW, LeaseAction.TERMINATE_SOFT, LeaseAction.TERMINATE_HARD


def at(seconds: float) -> DroneTime:
    return DroneTime(0).plus_s(seconds)


def lease() -> KeyLease:
    return KeyLease(lease_deadlines(at(0)))


def test_lease_that_is_renewed_in_time_continues() -> None:
    key = lease()
    assert key.due(at(29.9)) == []
    assert key.wake_at() == at(30)
    assert key.due(at(30)) == [RENEW]
    assert key.due(at(31)) == []
    key.renewed(lease_deadlines(at(30)))
    assert key.due(at(50)) == []
    assert key.due(at(60)) == [RENEW]


def test_renewal_is_requested_again_on_a_new_connection() -> None:
    key = lease()
    assert key.due(at(30)) == [RENEW]
    key.connected()
    assert key.due(at(32)) == [RENEW]


def test_lease_without_a_response_ends_softly_then_hard_each_once() -> None:
    key = lease()
    key.due(at(30))
    assert key.wake_at() == at(40)
    assert key.due(at(40)) == [SOFT]
    assert key.due(at(45)) == []
    assert key.wake_at() == at(50)
    assert key.due(at(50)) == [HARD]
    assert key.due(at(60)) == []
    assert key.wake_at() is None


def test_refused_renewal_keeps_the_deadlines_of_the_lease() -> None:
    key = lease()
    key.due(at(30))
    key.refused()
    assert key.due(at(39)) == []
    assert key.due(at(40)) == [SOFT]
    assert key.due(at(50)) == [HARD]


def test_only_the_hard_end_is_due_after_a_long_suspend() -> None:
    assert lease().due(at(120)) == [HARD]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_no_key_outlives_its_lease_whenever_it_is_polled(times: list[float]) -> None:
    key = lease()
    done = [action for time in sorted(times) for action in key.due(at(time))]
    if max(times) >= 50:
        assert HARD in done
    assert done.count(HARD) <= 1
    assert done.count(SOFT) <= 1
    assert done == sorted(done, key=[RENEW, SOFT, HARD].index)


@given(st.tuples(*[st.integers(0, 100_000)] * 3), st.booleans())
def test_what_is_due_next_is_due_at_that_time_in_whichever_order_the_deadlines_are(
    times_ms: tuple[int, int, int], is_connected_again: bool
) -> None:
    key = KeyLease(KeyDeadlines(*map(DroneTime, times_ms)))
    done = []
    while (wake_at := key.wake_at()) is not None:
        assert key.due(DroneTime(wake_at.ms - 1)) == []
        actions = key.due(wake_at)
        assert actions
        done += actions
        if is_connected_again:
            key.connected()
            is_connected_again = False
    assert done[-1] is HARD


def test_hard_deadline_is_fifty_seconds_after_the_start_of_the_first_lease_too() -> None:
    deadlines = lease_deadlines(DroneTime(1000))
    assert deadlines.renew_at == DroneTime(31_000)
    assert deadlines.soft_terminate_at == DroneTime(41_000)
    assert deadlines.hard_terminate_at == DroneTime(51_000)
