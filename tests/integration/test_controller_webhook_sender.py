"""Messages to hostile receivers: everything that they do is bounded, and no address is reached that is not allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from harness.webhook_receiver import Receiver, webhook_receiver
from plane.controller.webhooks.sender import WebhookSender, event_message, open_sender, test_message
from plane.database.webhooks import WebhookTarget
from plane.decisions.webhooks.delivery import Attempt, Outcome
from plane.protocol.event_feed import FeedEvent
from plane.protocol.times import DbTime

test_message.__test__ = False  # type: ignore[attr-defined]
SECRET = "whsec_" + "c2VjcmV0" * 8
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
OK = Attempt(Outcome.DELIVERED)


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, WebhookTarget]]:
    async with webhook_receiver() as receiver:
        receiver.secret = SECRET
        yield receiver, WebhookTarget(receiver.url, SECRET)


async def sent(sender: WebhookSender, target: WebhookTarget) -> Attempt:
    return await sender.send(target, *event_message(FeedEvent(id=7, type="backend.ready", time=DbTime(1_000))))


async def test_connections_are_reused_and_the_message_is_the_same_each_time() -> None:
    async with receiving() as (receiver, target), open_sender(LOOPBACK) as sender:
        assert [await sent(sender, target) for _ in range(3)] == [OK] * 3
        assert len(receiver.connections) == 1
        assert receiver.messages == [receiver.messages[0]] * 3
        identifier, body = receiver.messages[0]
        assert identifier == "evt_7"
        assert body == {"type": "backend.ready", "timestamp": "1970-01-01T00:00:01.000Z", "data": {"id": 7}}


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as (receiver, target), receiving() as (other, there), open_sender(LOOPBACK) as sender:
        for status in (301, 302, 303, 307, 308):
            receiver.respond = lambda _, status=status: web.Response(  # type: ignore[misc]
                status=status, headers={"Location": there.url}
            )
            attempt = await sent(sender, target)
            assert attempt == Attempt(Outcome.FAILED, f"the receiver responded {status}; redirects are not followed")
        assert other.attempts == other.messages == []


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nx-slow: ",
        b"SSH-2.0-nothing\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-field: a\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 1_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
    ids=["hangs", "hangs in the head", "no HTTP", "many fields", "long field", "endless interim responses"],
)
async def test_a_response_without_an_end_or_a_sense_fails_in_time(response: bytes) -> None:
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(response)
            await writer.drain()
            await released.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, open_sender(LOOPBACK, timeout_s=0.5) as sender:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(10):
            attempt = await sent(sender, WebhookTarget(url, SECRET))
        assert attempt.outcome is Outcome.FAILED
        assert attempt.error
        released.set()


async def test_the_status_decides_and_not_a_huge_or_a_dripping_body() -> None:
    stopped: list[str] = []

    async def huge(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(10_000):
                await response.write(b"x" * 65536)
        except ConnectionError:
            stopped.append("huge")
            raise
        return response

    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.05)
        except ConnectionError:
            stopped.append("dripping")
            raise

    async with receiving() as (receiver, target), open_sender(LOOPBACK) as sender:
        for hook in (huge, dripping):
            receiver.hook = hook
            async with asyncio.timeout(10):
                assert await sent(sender, target) == OK
        # The sender has closed both connections.
        await receiver.until(lambda: sorted(stopped) == ["dripping", "huge"])


async def test_a_slow_body_of_a_failure_is_a_failure() -> None:
    async def failing(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        await asyncio.sleep(5)
        return response

    async with receiving() as (receiver, target), open_sender(LOOPBACK) as sender:
        receiver.hook = failing
        began = time.monotonic()
        assert await sent(sender, target) == Attempt(Outcome.FAILED, "the receiver responded 500")
        assert time.monotonic() - began < 4


class Rebinding(AbstractResolver):
    """A name server of an attacker: each lookup has the next address."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.lookups += 1
        address = self.addresses.pop(0)
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_that_is_rebound_reaches_nothing_that_is_not_allowed() -> None:
    only_second = (ipaddress.ip_network("127.0.0.2/32"),)
    async with receiving() as (inner, _):
        port = inner.url.rpartition(":")[2].partition("/")[0]
        # Both addresses have the same port; on the allowed one the receiver closes each connection.
        async with _closing_receiver("127.0.0.2", int(port)) as accepted:
            resolver = Rebinding("127.0.0.2", "127.0.0.1", "127.0.0.2")
            target = WebhookTarget(f"http://receiver.example:{port}/hook", SECRET)
            async with open_sender(only_second, resolver=resolver) as sender:
                attempts = [await sent(sender, target) for _ in range(3)]
        assert [attempt.outcome for attempt in attempts] == [Outcome.DELIVERED, Outcome.FAILED, Outcome.DELIVERED]
        assert "127.0.0.1 is not public" in str(attempts[1].error)
        # One lookup for each connection: what was checked is what was connected to.
        assert (resolver.lookups, len(accepted)) == (3, 2)
        assert inner.attempts == []
        assert inner.invalid == []


@asynccontextmanager
async def _closing_receiver(host: str, port: int) -> AsyncIterator[list[bytes]]:
    accepted: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, host, port):
        yield accepted


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "0"],
)
async def test_no_spelling_of_loopback_is_reached_unless_it_is_allowed(host: str) -> None:
    async with receiving() as (receiver, _), open_sender(()) as sender:
        port = receiver.url.rpartition(":")[2].partition("/")[0]
        attempt = await sent(sender, WebhookTarget(f"http://{host}:{port}/hook", SECRET))
        assert attempt.outcome is Outcome.FAILED
        assert receiver.connections == set()
        assert receiver.invalid == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as (proxy, _), receiving() as (receiver, target), open_sender(LOOPBACK) as sender:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setitem(os.environ, name, proxy.url)
        assert await sent(sender, target) == OK
        assert len(receiver.messages) == 1


async def test_a_name_without_an_address_is_a_failure_with_its_reason() -> None:
    async with open_sender(LOOPBACK) as sender:
        attempt = await sent(sender, WebhookTarget("https://receiver.invalid/", SECRET))
    assert attempt.outcome is Outcome.FAILED
    assert str(attempt.error).startswith("not sent: ")


def test_a_test_message_has_a_type_of_its_own() -> None:
    identifier, body = test_message(5)
    assert identifier == "test_5"
    assert b'"webhook.test"' in body
