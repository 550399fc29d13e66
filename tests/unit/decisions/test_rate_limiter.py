from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.rate_limiter import BURST, NETWORKS_LIMIT, RATE_PER_S, RateLimiter, network_of


def test_neighbours_share_a_network() -> None:
    assert network_of("192.0.2.1") == network_of("192.0.2.200") == network_of("::ffff:192.0.2.9")
    assert network_of("192.0.2.1") != network_of("192.0.3.1")
    assert network_of("2001:db8::1") == network_of("2001:db8:0:ff::1%eth0")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:100::1")


@given(st.lists(st.floats(0, 0.2), max_size=200))
def test_no_more_than_the_burst_and_the_rate(gaps: list[float]) -> None:
    rate, now, allowed = RateLimiter(), 0.0, 0
    for gap in gaps:
        now += gap
        allowed += rate.allows("n", now)
        assert allowed <= BURST + now * RATE_PER_S + 1e-6


def test_one_s_flood_is_not_the_others() -> None:
    rate = RateLimiter()
    assert sum(rate.allows("flood", 0.0) for _ in range(1000)) == BURST
    assert rate.allows("other", 0.0)
    assert rate.allows("flood", 1.0)


def test_memory_is_bounded() -> None:
    rate = RateLimiter()
    for number in range(NETWORKS_LIMIT + 100):
        rate.allows(str(number), 0.0)
    assert len(rate._buckets) == NETWORKS_LIMIT


def test_rate_and_burst_can_be_given() -> None:
    limiter = RateLimiter(rate_per_s=0.5, burst=2)
    assert [limiter.allows("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [limiter.allows("a", 2.0), limiter.allows("a", 2.0)] == [True, False]
