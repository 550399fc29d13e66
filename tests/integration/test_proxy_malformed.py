"""Messages that are malformed, truncated or of HTTP/1.0: each gets a response, and promptly."""

from __future__ import annotations

import asyncio

import pytest

from harness.proxy_world import CLUSTER, LIMIT_S, World, get, says, status, world
from plane.settings import ProxyLimits

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    b"2;x=y\r\nok\r\n3\r\n\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
)
OLD_GET = f"GET /t/ HTTP/1.0\r\nHost: {CLUSTER}\r\nConnection: keep-alive\r\n\r\n".encode()


async def whole_response(it: World) -> bytes:
    """What a client gets for one request, until the proxy closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(get("/t/", "Connection: close"))
    async with asyncio.timeout(LIMIT_S):
        response = await reader.read(-1)
    writer.close()
    return response


@pytest.mark.parametrize("pieces", [1, 1000])
async def test_a_client_of_http_1_0_gets_the_data_of_a_chunked_response(pieces: int) -> None:
    async with world() as it:

        async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            size = max(1, len(CHUNKED) // pieces)
            for start in range(0, len(CHUNKED), size):
                writer.write(CHUNKED[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read(1)

        it.exchange = in_pieces
        # It ends with the connection, so a request after it gets no response.
        head, _, body = (await it.send(OLD_GET + get("/ready"))).partition(b"\r\n\r\n")
        assert status(head) == 200
        assert body == b"ok\r\n!"
        assert b"\r\nConnection: close" in head
        assert b"transfer-encoding" not in head.lower()
        assert b"trailer" not in head.lower()


async def test_a_truncated_chunked_response_is_visibly_incomplete_for_a_client_of_http_1_0() -> None:
    async with world() as it:
        it.exchange = says(CHUNKED[:-20])
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(OLD_GET)
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
        writer.close()


async def test_a_response_to_a_head_request_of_http_1_0_names_no_chunks() -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        response = await it.send(OLD_GET.replace(b"GET", b"HEAD"))
        assert status(response) == 200
        assert b"transfer-encoding" not in response.lower()


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"\x00\x00\x12\x04",
        b"HTTP/2 200\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ],
)
async def test_bytes_that_cannot_become_a_response_are_a_502_while_the_backend_stays(begun: bytes) -> None:
    async with world() as it:

        async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begun)
            await reader.read(1)

        it.exchange = stay
        response = await whole_response(it)
        assert b"HTTP/1.1 502 " in response


async def test_a_response_head_that_stalls_is_a_504_and_a_silent_backend_is_not() -> None:
    async with world(limits=ProxyLimits(body_s=0.2, sweep_interval_s=0.05)) as it:

        async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.6)
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 ")
            writer.write(b"103 Early Hints\r\n\r\n")
            await asyncio.sleep(0.6)
            writer.write(b"HTTP/1.1 200 OK\r")
            await reader.read(1)

        it.exchange = stop
        response = await whole_response(it)
        assert response.count(b"HTTP/1.1 103 ") == 2
        assert b"HTTP/1.1 504 " in response


BEGINNING = f"POST /t/ HTTP/1.1\r\nHost: {CLUSTER}\r\n".encode()


@pytest.mark.parametrize("path", [b"/t/", b"/asked/", b"/nope/"])
@pytest.mark.parametrize(
    "rest",
    [
        *(b"Content-Length: %s\r\n\r\nhello" % length for length in (b"x", b"-1", b"+5", b"5, 5", b"0x5", b"9" * 19)),
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        # Not a whole message, and nothing can follow.
        b"Content-Length: 999999999999999999\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"Content-Length: x\r\n",
        b"Content-Len",
    ],
)
async def test_an_invalid_message_whose_client_has_ended_gets_its_400(rest: bytes, path: bytes) -> None:
    async with world() as it:

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)

        it.add_route("asked")
        # The route of "t" is known, and the other one is looked up while the client ends.
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        it.exchange = read
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(BEGINNING.replace(b"/t/", path) + rest)
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            response = await reader.read(-1)
        writer.close()
        # Where the token leads nowhere, that may be said first.
        assert status(response) in ((400,) if path != b"/nope/" else (400, 410))
        assert response.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "begun", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /t/ HTTP/1.1\rHost: x\r\r", b"\x00"]
)
async def test_bytes_that_cannot_become_a_request_are_a_400_at_once(begun: bytes) -> None:
    async with world() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(begun)
        async with asyncio.timeout(5):
            assert status(await reader.readuntil(b"\r\n\r\n")) == 400
        writer.close()


async def test_empty_lines_before_a_request_may_come_in_pieces() -> None:
    async with world() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for byte in b"\r\n" + get():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
        writer.close()
