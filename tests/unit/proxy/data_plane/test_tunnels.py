"""Which tunnels are closed when a backend ends or tokens are revoked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from plane.decisions.http.tunnel_timeout import TunnelSide
from plane.decisions.routing.rewrite import Route, make_route
from plane.protocol.proxy_messages import RouteInfo
from plane.proxy.data_plane.keepalive_reporter import KeepaliveReporter
from plane.proxy.data_plane.tunnel import Tunnel
from plane.proxy.data_plane.tunnels import Tunnels


@dataclass(eq=False)
class Side:
    """A transport that only records that it was closed."""

    calls: list[str] = field(default_factory=list)

    def set_protocol(self, _: object) -> None:
        pass

    def write(self, _: bytes) -> None:
        pass

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


def route(token: str, backend_id: str) -> Route:
    info = RouteInfo(backend_id=backend_id, address="127.0.0.1:1", secret_token="", cluster="plane.example")
    return make_route(token, info, b"")


@pytest.fixture
async def tunnels() -> Tunnels:
    async def send(_: str) -> None:
        pass

    return Tunnels(KeepaliveReporter(send), lambda: 0.0, 60.0)


def begin(tunnels: Tunnels, token: str, backend_id: str) -> tuple[Tunnel, Side]:
    client = Side()
    # The two sides of a tunnel are of no common class with these.
    tunnel = tunnels.begin(cast("object", client), cast("object", Side()), route(token, backend_id))  # type: ignore[arg-type]
    return tunnel, client


async def test_end_of_a_backend_closes_its_tunnels_only(tunnels: Tunnels) -> None:
    (_, first), (_, second), (_, other) = begin(tunnels, "t", "a"), begin(tunnels, "u", "a"), begin(tunnels, "v", "b")
    assert tunnels.cut("a") == 2
    assert (first.calls, second.calls, other.calls) == (["abort"], ["abort"], [])
    assert tunnels.cut("unknown") == 0


async def test_revoked_tokens_close_their_tunnels_only(tunnels: Tunnels) -> None:
    (_, revoked), (_, kept) = begin(tunnels, "t", "a"), begin(tunnels, "u", "a")
    assert tunnels.cut("a", lambda route: route.token == "t") == 1
    assert (revoked.calls, kept.calls) == (["abort"], [])


async def test_tunnel_counts_until_both_sides_are_closed(tunnels: Tunnels) -> None:
    (one, _), (two, _) = begin(tunnels, "t", "a"), begin(tunnels, "t", "a")
    for side in TunnelSide:
        assert len(tunnels) == 2
        one.side_lost(side)
    assert len(tunnels) == 1
    tunnels.close()
    for side in TunnelSide:
        two.side_lost(side)
    assert len(tunnels) == 0
    assert tunnels.cut("a") == 0
