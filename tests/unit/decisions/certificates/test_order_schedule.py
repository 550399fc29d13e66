"""When certificates are ordered: times in, times out."""

from __future__ import annotations

import datetime
import itertools

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.certificates.order_schedule import OrderSchedule, Validity, renewal_time
from plane.timing import (
    CERTIFICATE_FAILURE_CAP_S,
    CERTIFICATE_FAILURE_FIRST_S,
    CERTIFICATE_LEASE_S,
    CERTIFICATE_RENEWAL_WINDOW_S,
)

BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def test_thirty_days_before_the_end() -> None:
    validity = Validity(BEGIN, BEGIN + 90 * DAY)
    assert validity.not_after - renewal_time(validity, None, 0.5) == datetime.timedelta(
        seconds=CERTIFICATE_RENEWAL_WINDOW_S
    )


@given(st.integers(1, 10**9))
def test_a_short_lived_certificate_is_used_for_two_thirds_of_its_life(lifetime_s: int) -> None:
    lifetime = datetime.timedelta(seconds=lifetime_s)
    due = renewal_time(Validity(BEGIN, BEGIN + lifetime), None, 0.5)
    assert BEGIN + lifetime * 0.6 < due < BEGIN + lifetime


@given(st.floats(0, 1))
def test_within_the_window_that_the_ca_suggests(chance: float) -> None:
    window = (BEGIN + DAY, BEGIN + 2 * DAY)
    due = renewal_time(Validity(BEGIN, BEGIN + 90 * DAY), window, chance)
    assert window[0] <= due <= window[1]
    assert due == renewal_time(Validity(BEGIN, BEGIN + 90 * DAY), window, chance)


def test_a_window_that_ends_before_it_begins_is_none() -> None:
    validity = Validity(BEGIN, BEGIN + 90 * DAY)
    assert renewal_time(validity, (BEGIN + DAY, BEGIN), 0.5) == renewal_time(validity, None, 0.5)


def test_failures_wait_longer_each_time_and_a_success_forgets_them() -> None:
    schedule, now, waits = OrderSchedule(), 0.0, []
    assert schedule.wait_s(now) == 0
    for _ in range(6):
        waits.append(schedule.failed(now, None))
        assert schedule.wait_s(now) == waits[-1]
        now += waits[-1]
        assert schedule.wait_s(now) == 0
    assert waits[0] == CERTIFICATE_FAILURE_FIRST_S
    assert waits == sorted(waits)
    assert waits[-1] == CERTIFICATE_FAILURE_CAP_S
    schedule.succeeded(now)
    assert schedule.wait_s(now) > 0
    assert schedule.failed(now, None) == CERTIFICATE_FAILURE_FIRST_S


def test_the_ca_s_word_is_waited_for_and_never_shortens_a_wait() -> None:
    schedule = OrderSchedule()
    assert schedule.failed(0.0, 7200.0) == 7200.0
    assert schedule.failed(0.0, 1.0) > 1.0


def test_another_s_lease_is_waited_for() -> None:
    schedule = OrderSchedule()
    schedule.refused(10.0)
    assert schedule.wait_s(10.0) == CERTIFICATE_LEASE_S


@given(st.lists(st.tuples(st.sampled_from(["failed", "refused", "succeeded"]), st.floats(0, 100)), max_size=60))
def test_whatever_happens_orders_never_follow_each_other_at_once(steps: list[tuple[str, float]]) -> None:
    schedule, now, orders = OrderSchedule(), 0.0, []
    for outcome, pause_s in steps:
        now += pause_s + schedule.wait_s(now + pause_s)
        orders.append(now)
        if outcome == "failed":
            schedule.failed(now, None)
        elif outcome == "refused":
            schedule.refused(now)
        else:
            schedule.succeeded(now)
    for earlier, later in itertools.pairwise(orders):
        assert later - earlier >= CERTIFICATE_FAILURE_FIRST_S - 1e-6
