"""Requests that wait for a route: when they are called, and what one of them can do to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from plane.decisions.routing.rewrite import Route
from plane.protocol.proxy_messages import RouteInfo, RouteInfoResponse
from plane.proxy.data_plane import route_lookup
from plane.proxy.data_plane.route_lookup import RouteLookup, RouteWaiter

FOUND = RouteInfoResponse("t", RouteInfo(backend_id="b", address="127.0.0.1:1", secret_token="s", cluster="c"))


async def _send(_: Sequence[str]) -> None:
    return


class Waiter:
    """A request that notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def route_found(self, route: Route | None) -> None:
        self.calls.append("nowhere" if route is None else route.backend_id)

    def lookup_failed(self) -> None:
        self.calls.append("failed")


class Broken(Waiter):
    def route_found(self, route: Route | None) -> None:
        raise ZeroDivisionError


def waiting(routes: RouteLookup, *waiters: RouteWaiter) -> None:
    for waiter in waiters:
        routes.look_up("t", waiter)


async def test_requests_are_called_before_a_revocation_that_arrives_with_the_route() -> None:
    # The revocation cuts what the requests have opened. One that continued after it would not be cut.
    routes, waiter = RouteLookup(_send, b""), Waiter()
    waiting(routes, waiter)
    routes.receive(FOUND)
    calls = list(waiter.calls)
    routes.revoke(["t"])
    assert calls == ["b"]
    assert waiter.calls == ["b"]


async def test_request_that_waits_gets_no_route_of_a_revoked_token() -> None:
    routes, waiter = RouteLookup(_send, b""), Waiter()
    waiting(routes, waiter)
    routes.revoke(["t"])
    routes.receive(FOUND)
    assert waiter.calls == ["nowhere"]


async def test_defect_of_one_request_does_not_reach_the_others() -> None:
    routes, waiter = RouteLookup(_send, b""), Waiter()
    waiting(routes, Broken(), waiter)
    routes.receive(FOUND)
    assert waiter.calls == ["b"]


async def test_request_that_has_left_is_not_called() -> None:
    routes, left, stays = RouteLookup(_send, b""), Waiter(), Waiter()
    waiting(routes, left, stays)
    routes.leave("t", left)
    routes.leave("t", left)
    routes.receive(FOUND)
    routes.leave("t", stays)
    assert (left.calls, stays.calls) == ([], ["b"])


async def test_chain_of_failures_has_no_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each response of a client that pipelines may lead to its next lookup, which makes the oldest one fail.
    monkeypatch.setattr(route_lookup, "LOOKUPS_LIMIT", 1)
    routes = RouteLookup(_send, b"")
    depth, deepest = 0, 0

    class Pipelining(Waiter):
        def lookup_failed(self) -> None:
            nonlocal depth, deepest
            depth += 1
            deepest = max(deepest, depth)
            if next(remaining, None) is not None:
                routes.look_up(f"t-{id(self)}-{depth}", Pipelining())
            depth -= 1

    remaining = iter(range(50))
    routes.look_up("first", Pipelining())
    routes.look_up("second", Pipelining())
    for _ in range(100):
        await asyncio.sleep(0)
    assert deepest == 1
