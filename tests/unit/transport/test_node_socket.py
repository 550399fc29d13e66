"""Several messages of one end of a node socket leave together, and nothing stays behind; who hangs holds nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from plane import timing
from plane.protocol.drone_messages import AckEvent, MessageFromDrone, MessageToDrone, RenewKeyResponse
from plane.protocol.handshake import Handshake
from plane.protocol.names import NodeName
from plane.transport.controller_url import ControllerUrl
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed
from plane.version import this_version


@asynccontextmanager
async def connection_to_an_echo() -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for frame in ws:
            await ws.send_str(frame.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    async with TestServer(app) as server, aiohttp.ClientSession() as http, http.ws_connect(server.make_url("/")) as ws:
        yield ws


def acks(*numbers: int) -> list[MessageToDrone]:
    return [MessageToDrone(ack_event=AckEvent(number)) for number in numbers]


def sending(ws: aiohttp.ClientWebSocketResponse) -> NodeSocket[MessageFromDrone, MessageToDrone]:
    return NodeSocket(ws, Handshake(version=this_version(), name="dr-a"), MessageFromDrone)


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3], list(range(500))])
async def test_messages_arrive_in_order_and_without_delay(numbers: list[int]) -> None:
    async with connection_to_an_echo() as ws:
        await sending(ws).send_all(acks(*numbers))
        heard = [json.loads(await ws.receive_str(timeout=10)) for _ in numbers]
        assert heard == [{"AckEvent": {"event_id": number}} for number in numbers]
        assert ws.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0


async def test_broken_connection_is_reported() -> None:
    async with connection_to_an_echo() as ws:
        await ws.close()
        with pytest.raises(SocketClosed):
            await sending(ws).send_all(acks(1, 2))


@asynccontextmanager
async def connection_to_a_peer_that_does_not_read() -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    ended = asyncio.Event()

    async def hang(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        await ended.wait()
        request.transport.abort()
        return ws

    app = web.Application()
    app.router.add_get("/", hang)
    async with TestServer(app) as server, aiohttp.ClientSession() as http, http.ws_connect(server.make_url("/")) as ws:
        try:
            yield ws
        finally:
            ended.set()


# More than the buffers of both sockets.
LARGE = [MessageToDrone(renew_key_response=RenewKeyResponse("x" * 1_000_000))] * 32


async def test_peer_that_does_not_read_in_time_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "NODE_SEND_TIMEOUT_S", 0.5)
    async with connection_to_a_peer_that_does_not_read() as ws, asyncio.timeout(30):
        with pytest.raises(SocketClosed):
            await sending(ws).send_all(LARGE)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_cancelled_send_is_no_timeout() -> None:
    async with connection_to_a_peer_that_does_not_read() as ws:
        sender = asyncio.create_task(sending(ws).send_all(LARGE))
        await asyncio.wait([sender], timeout=0.5)
        assert not sender.done()
        sender.cancel()
        await asyncio.wait([sender], timeout=30)
        assert sender.cancelled()


async def test_hanging_controller_does_not_delay_a_stopping_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "NODE_SEND_TIMEOUT_S", 0.2)
    ended = asyncio.Event()

    async def greet_and_hang(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str(json.dumps({"version": {"version": "0.5.5", "git_hash": "x"}, "name": "co-hung"}))
        await ended.wait()
        return ws

    connected = asyncio.Event()

    async def session(connection: NodeSocket[MessageToDrone, MessageFromDrone]) -> None:
        connected.set()
        await asyncio.Event().wait()

    app = web.Application()
    app.router.add_get("/hung", greet_and_hang)
    async with TestServer(app) as server:
        url = ControllerUrl.parse(str(server.make_url("")))
        connector: NodeConnector[MessageToDrone, MessageFromDrone] = NodeConnector(
            url, "/hung", "dr-a", MessageToDrone, session
        )
        running = asyncio.create_task(connector.run())
        async with asyncio.timeout(10):
            await connected.wait()
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=10)
        ended.set()
        assert done
        assert running.cancelled()


@pytest.mark.parametrize(
    ("status", "event", "reason"),
    [
        (401, "controller refuses this node", "HTTP status 401: the reason"),
        (403, "controller refuses this node", "HTTP status 403: the reason"),
        (404, "controller not reached", "HTTP status 404"),
    ],
)
async def test_a_response_that_opens_no_socket_is_logged_by_what_it_means(status: int, event: str, reason: str) -> None:
    async def respond(_: web.Request) -> web.Response:
        return web.json_response({"id": "i", "kind": "Other", "message": "the reason"}, status=status)

    async def no_session(_: NodeSocket[MessageToDrone, MessageFromDrone]) -> None:
        raise AssertionError("there is no connection")

    app = web.Application()
    app.router.add_get("/socket", respond)
    async with TestServer(app) as server:
        url = ControllerUrl.parse(str(server.make_url("")))
        connector: NodeConnector[MessageToDrone, MessageFromDrone] = NodeConnector(
            url, "/socket", NodeName("dr-a"), MessageToDrone, no_session
        )
        with capture_logs() as logs:
            running = asyncio.create_task(connector.run())
            async with asyncio.timeout(10):
                while not logs:
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait([running])
    assert logs[0]["event"] == event
    assert (logs[0].get("reason") or logs[0]["error"]) == reason
