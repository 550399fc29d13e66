"""When a node tries again (page 1: 1 s, x1.1, cap 60 s; after 60 s of health it starts over)."""

from __future__ import annotations

from plane.decisions.reconnect_backoff import ReconnectBackoff


def test_it_rises_to_the_cap() -> None:
    backoff = ReconnectBackoff()
    waits = [backoff.ended(0.0) for _ in range(60)]
    assert waits[:3] == [1.0, 1.1, 1.1 * 1.1]
    assert waits[-1] == 60.0


def test_a_minute_of_health_starts_over_and_less_does_not() -> None:
    backoff = ReconnectBackoff()
    backoff.ended(0.0)
    backoff.connected(0.0)
    assert backoff.ended(59.0) > 1.0
    backoff.connected(100.0)
    assert backoff.ended(160.0) == 1.0


def test_an_end_in_good_order_is_followed_at_once_but_never_in_a_loop() -> None:
    backoff = ReconnectBackoff()
    backoff.connected(0.0)
    assert backoff.ended(5.0, asked_for=True) == 0.0
    backoff.connected(5.0)
    assert backoff.ended(5.1, asked_for=True) == 1.0
