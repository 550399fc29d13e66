"""Retries of calls, and the backoff of reconnections: 1 s, x1.1, cap 60 s; it starts over after 60 s of health."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.retry import MAX_ATTEMPTS, ReconnectBackoff, is_transient, may_retry, retry_delay


def test_backoff_rises_to_the_cap() -> None:
    backoff = ReconnectBackoff()
    waits = [backoff.ended(0.0) for _ in range(60)]
    assert waits[:3] == [1.0, 1.1, 1.1 * 1.1]
    assert waits[-1] == 60.0
    capped = ReconnectBackoff(cap_s=10.0)
    assert max(capped.ended(0.0) for _ in range(60)) == 10.0


def test_backoff_starts_over_after_a_minute_of_health_only() -> None:
    backoff = ReconnectBackoff()
    backoff.ended(0.0)
    backoff.connected(0.0)
    assert backoff.ended(59.0) > 1.0
    backoff.connected(100.0)
    assert backoff.ended(160.0) == 1.0


def test_graceful_end_is_followed_at_once_but_never_in_a_loop() -> None:
    backoff = ReconnectBackoff()
    backoff.connected(0.0)
    assert backoff.ended(5.0, graceful=True) == 0.0
    backoff.connected(5.0)
    assert backoff.ended(5.1, graceful=True) == 1.0


@pytest.mark.parametrize(
    ("idempotent", "sent", "again"),
    [(True, True, True), (True, False, True), (False, False, True), (False, True, False)],
)
def test_call_that_is_not_idempotent_is_retried_only_if_it_was_not_sent(
    idempotent: bool, sent: bool, again: bool
) -> None:
    assert may_retry(1, idempotent=idempotent, sent=sent) is again


def test_attempts_are_limited() -> None:
    assert may_retry(MAX_ATTEMPTS - 1, idempotent=True, sent=False)
    assert not may_retry(MAX_ATTEMPTS, idempotent=True, sent=False)


def test_only_gateway_errors_are_transient() -> None:
    assert [status for status in range(200, 600) if is_transient(status)] == [502, 503, 504]


@given(st.floats(0, 1), st.floats(0, 1))
def test_delays_grow_for_every_random_value(one: float, other: float) -> None:
    assert 0 < retry_delay(2, one) < retry_delay(3, other) < 1
