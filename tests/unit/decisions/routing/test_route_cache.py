"""Routes are cached while their end would be noticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.route_cache import (
    DISCONNECTED_LIFETIME_S,
    NEGATIVE_LIFETIME_S,
    REMOVED_LIFETIME_S,
    REVOKED_LIFETIME_S,
    RouteCache,
)


def test_an_expired_token_leads_nowhere_although_it_is_cached() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", expires_at=10.0, now=0.0)
    assert cache.get("t", 9.9) == "route"
    assert cache.get("t", 10.0) is None


def test_bad_tokens_expire_soon_and_evict_no_route() -> None:
    cache: RouteCache[str] = RouteCache(routes_limit=2, negatives_limit=2)
    cache.put("good", "route", "b", None, 0.0)
    for number in range(100):
        cache.put_gone(f"bad{number}", now=0.0)
    assert cache.get("good", 0.0) == "route"
    assert cache.get("bad99", 0.0) == "gone"
    assert cache.get("bad0", 0.0) is None
    assert cache.get("bad99", NEGATIVE_LIFETIME_S) is None


def test_the_cache_evicts_the_least_recently_used_route() -> None:
    cache: RouteCache[str] = RouteCache(routes_limit=2)
    for token in ("a", "b"):
        cache.put(token, token, "backend", None, 0.0)
    cache.get("a", 0.0)
    cache.put("c", "c", "backend", None, 0.0)
    assert [cache.get(token, 0.0) for token in ("a", "b", "c")] == ["a", None, "c"]
    cache.remove_backend("backend", 0.0)
    assert [cache.get(token, 0.0) for token in ("a", "c")] == [None, None]


def test_an_older_response_does_not_restore_a_revoked_token() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.revoke("t", now=0.0)
    cache.put("t", "route", "b", None, 0.0)
    assert cache.get("t", 1.0) == "gone"
    assert cache.get("t", REVOKED_LIFETIME_S) is None


def test_a_route_is_looked_up_again_after_a_reconnect() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.disconnected(10.0)
    assert cache.get("t", 10.0) == "route"
    cache.connected(11.0)
    assert cache.get("t", 11.0) is None
    cache.put("t", "other", "b", None, 12.0)
    assert cache.get("t", 1_000_000.0) == "other"


def test_routes_are_followed_for_a_lease_without_a_controller() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.put("u", "route", "b", None, 0.0)
    cache.disconnected(10.0)
    cache.disconnected(60.0)
    assert cache.get("t", 9.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("t", 10.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"
    assert cache.get("x", 10.0 + DISCONNECTED_LIFETIME_S) is None
    # A short connection confirms only the tokens that were looked up on it.
    for now in (20.0, 30.0, 40.0):
        cache.connected(now)
        cache.put("u", "route", "b", None, now)
        cache.disconnected(now + 1)
    assert cache.get("t", 9.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("t", 10.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"
    assert cache.get("u", 40.9 + DISCONNECTED_LIFETIME_S) == "route"
    assert cache.get("u", 41.0 + DISCONNECTED_LIFETIME_S) == "unconfirmed"


def test_a_distrusted_route_is_looked_up_or_not_followed() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.put("t", "route", "b", None, 0.0)
    cache.distrust()
    assert cache.get("t", 0.0) is None
    cache.disconnected(0.0)
    assert cache.get("t", 0.0) == "unconfirmed"


def test_a_response_in_transit_does_not_restore_a_removed_backend() -> None:
    cache: RouteCache[str] = RouteCache()
    cache.remove_backend("b", 0.0)
    cache.put("t", "route", "b", None, 1.0)
    cache.put("u", "route", "c", None, 1.0)
    assert (cache.get("t", 1.0), cache.get("u", 1.0)) == ("gone", "route")
    cache.forget_backend("c")
    cache.put("u", "route", "c", None, REMOVED_LIFETIME_S)
    cache.put("t", "route", "b", None, REMOVED_LIFETIME_S)
    assert (cache.get("t", REMOVED_LIFETIME_S), cache.get("u", REMOVED_LIFETIME_S)) == ("route", "route")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connected", "disconnected", "distrust", "ended", "put", "get"]),
        st.sampled_from("ab"),
        st.floats(0, 50),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_route_is_followed_whose_end_may_have_been_missed(steps: list[tuple[str, str, float]]) -> None:
    """While connected, the end of a backend is noticed at once. Otherwise its route is followed less than a lease."""
    cache: RouteCache[str] = RouteCache()
    now, connected = 0.0, True
    ended_at: dict[str, float] = {}
    cached: set[str] = set()
    for step, backend, passed in steps:
        now += passed
        match step:
            case "connected" if not connected:
                cache.connected(now)
                connected = True
            case "disconnected" if connected:
                cache.disconnected(now)
                connected = False
            case "distrust":
                cache.distrust()
            case "ended" if backend not in ended_at:
                ended_at[backend] = now
                if connected:
                    cache.remove_backend(backend, now)
            case "put" if connected and backend not in ended_at:
                cache.put(backend, backend, backend, None, now)
                cached.add(backend)
            case _:
                if cache.get(backend, now) == backend:
                    assert backend in cached
                    assert backend not in ended_at or now - ended_at[backend] < DISCONNECTED_LIFETIME_S
                    assert backend not in ended_at or not connected
