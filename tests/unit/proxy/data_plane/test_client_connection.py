"""Backpressure through a client's connection and a backend's, between transports that the test controls."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from plane.protocol.names import ClusterName, NodeName
from plane.protocol.proxy_messages import RouteInfo, RouteInfoResponse
from plane.proxy.data_plane.client_connection import ClientConnection
from plane.proxy.data_plane.upstream import UpstreamConnection
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.transport.controller_url import ControllerUrl

CLUSTER = "localhost:9"
TOKENS = ("t", "u")
BIG = b"x" * 100_000
GET_T = b"GET /t/ HTTP/1.1\r\nHost: localhost:9\r\n\r\n"
GET_U = b"GET /u/ HTTP/1.1\r\nHost: localhost:9\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire:
    """A transport whose peer takes ``room`` bytes before it is slow."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.protocol: Any = None
        self.room = room
        self.sent = b""
        self.reading = True
        self.open = True
        self.slow = False

    def write(self, data: bytes) -> None:
        self.sent += data
        if len(self.sent) > self.room and not self.slow:
            self.slow = True
            self.protocol.pause_writing()

    def drain(self) -> None:
        """The peer has read everything."""
        self.slow, self.room = False, len(self.sent) + 1_000_000
        self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> Any:
        return ("1.2.3.4", 5) if name == "peername" else None

    def is_closing(self) -> bool:
        return not self.open

    def close(self) -> None:
        self.open = False

    abort = close


class Scene:
    """A client, and a free connection to each backend."""

    def __init__(self, *, client_room: int = 1_000_000, backend_room: int = 1_000_000) -> None:
        async def nothing(_: object) -> None:
            return

        settings = ProxySettings(
            controller_url=ControllerUrl.parse("http://127.0.0.1:1"),
            cluster=ClusterName(CLUSTER),
            name=NodeName("px-test"),
        )
        self.service = ProxyService(settings, nothing, nothing)
        self.client = Wire(client_room)
        self.connection: ClientConnection = self.service.new_connection(EntryPoint.HTTP)
        self.client.protocol = self.connection
        self.connection.connection_made(cast("asyncio.Transport", self.client))
        self.backends: dict[str, Wire] = {}
        for token in TOKENS:
            info = RouteInfo(backend_id=token, address="127.0.0.1:1", secret_token="s", cluster=CLUSTER)
            self.service.routes.receive(RouteInfoResponse(token, info))
            route = self.service.routes.cached(token)
            assert route is not None
            assert route != "gone"
            assert route != "unconfirmed"
            upstream = UpstreamConnection(route, self.service.pool)
            wire = self.backends[token] = Wire(backend_room)
            wire.protocol = upstream
            upstream.connection_made(cast("asyncio.Transport", wire))
            assert upstream.responses.read_head(OK) is not None
            self.service.pool.put(upstream)

    def free(self, token: str) -> bool:
        route = self.service.routes.cached(token)
        assert route is not None
        assert route != "gone"
        assert route != "unconfirmed"
        return self.service.pool.take(route, repeatable=True) is not None


@pytest.fixture
async def slow_client() -> Scene:
    return Scene(client_room=50_000)


@pytest.fixture
async def slow_backend() -> Scene:
    return Scene(backend_room=50_000)


def response_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def test_a_slow_client_stops_its_backend(slow_client: Scene) -> None:
    slow_client.connection.data_received(GET_T)
    backend = slow_client.backends["t"]
    backend.protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + BIG)
    assert not backend.reading
    slow_client.client.drain()
    assert backend.reading


async def test_a_connection_freed_by_a_slow_client_is_read_for_the_next_one(slow_client: Scene) -> None:
    slow_client.connection.data_received(GET_T)
    backend = slow_client.backends["t"]
    backend.protocol.data_received(response_of(BIG))
    assert slow_client.client.slow
    assert slow_client.free("t")
    assert backend.reading


async def test_a_client_that_does_not_read_gets_no_further_request_served(slow_client: Scene) -> None:
    slow_client.connection.data_received(GET_T + GET_U)
    slow_client.backends["t"].protocol.data_received(response_of(BIG))
    slow_client.connection.data_received(GET_U)
    assert slow_client.backends["u"].sent == b""
    slow_client.client.drain()
    assert slow_client.backends["u"].sent.startswith(b"GET / HTTP/1.1\r\n")
    slow_client.backends["u"].protocol.data_received(OK)
    assert slow_client.client.sent.endswith(b"ok")


async def test_responses_of_the_proxys_own_wait_for_a_slow_client_too(slow_client: Scene) -> None:
    one = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
    slow_client.connection.data_received(one * 2_000)
    assert 50_000 < len(slow_client.client.sent) < 51_000
    while slow_client.client.slow:
        slow_client.client.drain()
    assert slow_client.client.sent.count(b"HTTP/1.1 503 ") == 2_000


async def test_early_body_bytes_do_not_resume_a_client_whose_backend_is_slow(slow_backend: Scene) -> None:
    head = b"POST /t/ HTTP/1.1\r\nHost: localhost:9\r\nContent-Length: 1000000\r\n\r\n"
    slow_backend.connection.data_received(head + BIG)
    assert slow_backend.backends["t"].slow
    assert not slow_backend.client.reading
    slow_backend.backends["t"].drain()
    assert slow_backend.client.reading


async def test_a_connection_with_an_unsent_request_is_not_used_again(slow_backend: Scene) -> None:
    head = b"POST /t/ HTTP/1.1\r\nHost: localhost:9\r\nContent-Length: 100000\r\n\r\n"
    slow_backend.connection.data_received(head + BIG)
    slow_backend.backends["t"].protocol.data_received(OK)
    assert not slow_backend.backends["t"].open
    assert not slow_backend.free("t")


async def test_early_data_of_a_tunnel_is_held_back_for_a_slow_backend(slow_backend: Scene) -> None:
    head = b"GET /t/ HTTP/1.1\r\nHost: localhost:9\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
    slow_backend.connection.data_received(head)
    slow_backend.connection.data_received(BIG)
    slow_backend.backends["t"].protocol.data_received(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
    )
    assert not slow_backend.client.reading
    slow_backend.backends["t"].drain()
    assert slow_backend.client.reading
