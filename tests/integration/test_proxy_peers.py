"""What slow, vanishing, hostile and merely unusual peers can do to the proxy, and to each other: nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from harness.proxy_world import LIMIT_S, OK, get, says, status, world
from plane.decisions.routing import pending_lookups
from plane.proxy.data_plane import route_lookup
from plane.settings import ProxyLimits

BIG = 8_000_000


async def test_a_slow_reader_does_not_delay_later_requests() -> None:
    async with world() as it:

        async def big_or_small(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /big"):
                    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n".encode() + bytes(BIG))
                else:
                    writer.write(OK)
                await writer.drain()

        it.exchange = big_or_small
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", it.port))
        reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
        writer.write(get("/t/big"))
        async with asyncio.timeout(60):
            got = 0
            while got < BIG:
                got += len(await reader.read(65536))
        for _ in range(3):
            assert status(await it.send(get("/t/small", "Connection: close"))) == 200
        writer.close()


async def test_thousands_of_pipelined_requests_all_get_a_response() -> None:
    async with world() as it:
        response = await it.send(get("/ready") * 3_000)
        assert response.count(b"HTTP/1.1 200 ") == 3_000


async def test_interim_responses_keep_their_fields_however_many() -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 2_000 + OK)
        response = await it.send(get())
        assert response.count(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n") == 2_000
        assert response.endswith(b"\r\n\r\nok")


async def test_fields_that_the_backends_connection_names_are_for_one_hop() -> None:
    async with world() as it:
        it.exchange = says(
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop, content-length\r\nX-Hop: 1\r\nX-End: 2\r\n" + OK[17:]
        )
        response = await it.send(get())
        assert b"X-Hop" not in response
        assert b"X-End: 2" in response
        assert response.endswith(b"ok")


async def test_a_root_with_a_query_is_the_root_and_an_impossible_token_is_not_looked_up() -> None:
    async with world() as it:
        assert status(await it.send(get("/?from=mail"))) == 400
        assert status(await it.send(get("//x"))) == 410
        assert status(await it.send(get("/" + "a" * 300 + "/"))) == 410
        assert it.asked == []


async def test_an_upgrade_to_http_2_is_ignored() -> None:
    async with world() as it:
        asked = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: websocket, H2C", "HTTP2-Settings: AAMAAABk")
        assert status(await it.send(get("/t/", *asked))) == 200
        heard = it.heard[0].lower()
        assert b"upgrade" not in heard
        assert b"http2-settings" not in heard


async def test_an_announced_end_comes() -> None:
    async with world() as it:

        async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await reader.readexactly(5)
            writer.write(b"cd")
            await reader.read(-1)

        it.exchange = early
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Content-Length: 5", method="POST"))
        async with asyncio.timeout(LIMIT_S):
            assert b"Connection: close" in await reader.readuntil(b"\r\n\r\nab")
            writer.write(b"hello")
            assert await reader.read(-1) == b"cd"
        writer.close()


async def test_a_client_that_closes_during_a_silent_response_ends_the_use() -> None:
    async with world() as it:
        gone = asyncio.Event()

        async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await reader.read(-1)
            gone.set()

        it.exchange = quiet
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/events"))
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"a\r\n")
            writer.close()
            await gone.wait()
        assert gone.is_set()


async def test_a_half_closed_client_gets_a_response_that_progresses() -> None:
    async with world(limits=ProxyLimits(half_closed_s=0.5)) as it:

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                await asyncio.sleep(0.15)
                writer.write(b"x")

        it.exchange = drip
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            assert (await reader.read(-1)).endswith(b"\r\n\r\n" + b"x" * 20)
        writer.close()


async def test_an_incomplete_head_times_out_on_a_used_connection_too() -> None:
    async with world(limits=ProxyLimits(head_s=0.2)) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\nok")
            writer.write(b"GET /t/ HT")
            assert status(await reader.read(-1)) == 408
        writer.close()


async def test_a_client_that_never_reads_its_last_response_is_cut() -> None:
    async with world(limits=ProxyLimits(closing_s=0.2)) as it:
        sent = asyncio.Event()

        async def big(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
            sent.set()

        it.exchange = big
        slow = socket.socket()
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", it.port))
        await loop.sock_sendall(slow, get("/t/", "Connection: close"))
        async with asyncio.timeout(LIMIT_S):
            await sent.wait()
            while chunk := await loop.sock_recv(slow, 65536):
                assert chunk
        slow.close()


async def test_a_lost_lookup_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_lookups, "RESEND_INTERVAL_S", 0.2)
    async with world() as it:
        it.silent = True
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            await it.until_asked()
            it.silent = False
            assert status(await reader.readuntil(b"ok")) == 200
        writer.close()


async def test_a_lookup_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_lookup, "POLL_INTERVAL_S", 0.05)
    async with world() as it:
        it.silent = True
        # Its lookup is never resolved; that of the next request is sent as soon as it is removed. A client that leaves
        # without a reset might only have half-closed, so the proxy waits that long.
        async with asyncio.timeout(LIMIT_S):
            while len(it.asked) < 2:
                _, writer = await asyncio.open_connection("127.0.0.1", it.port)
                writer.write(get())
                await asyncio.sleep(0.1)
                writer.transport.abort()
                await asyncio.sleep(ProxyLimits().half_closed_s + 1.5)
        assert set(it.asked) == {"t"}


async def test_a_lookup_fails_soon_when_the_controller_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_lookups, "DISCONNECTED_TIMEOUT_S", 0.3)
    async with world() as it:
        it.silent = it.gone = True
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            await it.until_asked()
            assert it.controller is not None
            await it.controller.close()
            assert status(await reader.readuntil(b"\r\n\r\n")) == 504
        writer.close()


async def test_the_token_of_an_unreachable_backend_is_looked_up_again() -> None:
    async with world() as it:
        it.add_route("t", address="127.0.0.1:1")
        assert status(await it.send(get("/t/", "Connection: close"))) == 502
        # It ended while the proxy had no connection to a controller: BackendRemoved was missed.
        it.routes["t"] = None
        assert status(await it.send(get("/t/", "Connection: close"))) == 410
        assert it.asked == ["t", "t"]


async def test_a_tunnel_outlives_the_controller() -> None:
    async with world() as it:
        it.exchange = it.switch_and_echo
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Connection: Upgrade", "Upgrade: raw"))
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\n")
            first = it.controller
            assert first is not None
            it.kept_alive.clear()
            await first.close(code=1001)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            # The next controller gets a keepalive of the backend at once.
            while it.kept_alive != ["b-t"]:
                await asyncio.sleep(0.02)
            assert it.controller is not first
        # A cached route needs no question.
        assert it.asked == ["t"]
        writer.close()
