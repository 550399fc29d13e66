"""The end of a response is what HTTP says, not what the backend sends: bytes after it reach no client.

Two requests are pipelined on one client connection. The first goes to a backend that sends too much, the second to
another backend, or to the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from harness.proxy_world import LIMIT_S, OK, get, says, status, world

POISON = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"

# Method, what the backend sends as its response, and what of it is the body.
RESPONSES = {
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "HEAD with the length of GET": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 59\r\n\r\n", b""),
    "HEAD, chunked": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    "HEAD without framing": ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", b""),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 59\r\n\r\n", b""),
    "204, chunked": ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
    "304 with the length of 200": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 59\r\n\r\n", b""),
    "length 0": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "length 0 after 103": (
        "GET",
        b"HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "length 2": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "last chunk": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "chunks": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok\r\n0\r\n\r\n"),
    "trailers": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nDigest: x\r\n\r\n",
        b"0\r\nDigest: x\r\n\r\n",
    ),
}
# Where the backend's bytes are cut: the last segment is the poison alone, or has the end of the response before it.
SEGMENTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "one segment": lambda response: [response + POISON],
    "head cut": lambda response: [response[:20], response[20:] + POISON],
    "last byte with the poison": lambda response: [response[:-1], response[-1:] + POISON],
    "poison cut": lambda response: [response + POISON[:1], POISON[1:]],
    "poison alone": lambda response: [response, POISON],
}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("cut", SEGMENTS)
async def test_bytes_after_the_end_of_a_response_reach_no_client(name: str, cut: str) -> None:
    method, response, body = RESPONSES[name]
    async with world() as it:
        it.add_route("u")
        proxy_closed = asyncio.Event()

        async def send_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b"\r\nx-verified-backend: b-u\r\n" in await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
                return
            for segment in SEGMENTS[cut](response):
                writer.write(segment)
                await writer.drain()
                # Long enough for the proxy to read the segment by itself.
                await asyncio.sleep(0.02)
            await reader.read(-1)
            proxy_closed.set()

        it.exchange = send_too_much
        response = await it.send(get("/t/", method=method) + get("/u/", "Connection: close"))
        assert b"oison" not in response
        first, second = response.removeprefix(b"HTTP/1.1 103 x\r\nLink: a\r\n\r\n").split(b"HTTP/1.1 ")[1:]
        assert first.endswith((b"\r\n\r\n" + body, b"\r\n2\r\n" + body))
        assert (second[:3], second[-2:]) == (b"200", b"ok")
        # No connection that brought too much is used again.
        async with asyncio.timeout(LIMIT_S):
            await proxy_closed.wait()
        it.exchange = says(OK)
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        assert it.connections == 3


@pytest.mark.parametrize("name", RESPONSES)
async def test_bytes_after_the_end_of_a_response_are_not_the_next_response(name: str) -> None:
    method, response, _ = RESPONSES[name]
    async with world() as it:

        async def send_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(OK if b" /next " in head else response + POISON)
            await writer.drain()
            await reader.read(-1)

        it.exchange = send_too_much
        response = await it.send(get("/t/", method=method) + get("/t/next", "Connection: close"))
        assert b"oison" not in response
        assert response.endswith(b"\r\n\r\nok")
        assert it.connections == 2


async def test_an_unsolicited_byte_closes_a_free_connection() -> None:
    async with world() as it:
        proxy_closed = asyncio.Event()

        async def send_a_byte_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            if it.connections == 1:
                await asyncio.sleep(0.1)
                writer.write(b"H")
            await reader.read(-1)
            proxy_closed.set()

        it.exchange = send_a_byte_later
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        async with asyncio.timeout(LIMIT_S):
            await proxy_closed.wait()
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        assert it.connections == 2


@pytest.mark.parametrize("status_line", [b"103 Early Hints", b"204 No Content"])
@pytest.mark.parametrize("framing", [b"Content-Length: 59", b"Transfer-Encoding: chunked"])
async def test_a_response_without_a_body_announces_none(status_line: bytes, framing: bytes) -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 " + status_line + b"\r\n" + framing + b"\r\nA: b\r\n\r\n" + OK)
        response = await it.send(get("/t/", "Connection: close"))
        head = response.split(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 " + status_line + b"\r\nA: b")
        assert framing not in head


@pytest.mark.parametrize("interim", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_the_body_of_an_interim_response_is_not_a_response(interim: bytes) -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 103 Early Hints\r\n" + interim + OK)
        response = await it.send(get("/t/", "Connection: close"))
        assert b"hello" not in response
        assert response.split(b"HTTP/1.1 ")[2].startswith(b"502 ")


# Whether another client may use the connection of such a response: not if a careless backend may send a body after it.
SHARED_AFTER = {
    "HEAD": True,
    "HEAD with the length of GET": False,
    "HEAD, chunked": False,
    "HEAD without framing": False,
    "204": True,
    "204 with a length": False,
    "204, chunked": False,
    "304": True,
    "304 with the length of 200": False,
    "length 0": True,
    "length 2": True,
    "chunks": True,
}


@pytest.mark.parametrize("name", SHARED_AFTER)
async def test_a_connection_whose_response_announced_an_absent_body_serves_no_other_client(name: str) -> None:
    method, response, _ = RESPONSES[name]
    async with world() as it:
        late = asyncio.Event()

        async def send_the_body_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while b" /first " not in await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
            writer.write(response)
            if not SHARED_AFTER[name]:
                await late.wait()
                writer.write(POISON)
            await it.answer_ok(reader, writer)

        it.exchange = send_the_body_late
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/first", method=method))
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\n")
        other = asyncio.create_task(it.send(get("/t/other", "Connection: close")))
        # As soon as the other request has been sent, on whichever connection.
        await asyncio.wait([other], timeout=0.2)
        late.set()
        response = await other
        assert (status(response), b"oison" in response) == (200, False)
        assert it.connections == (1 if SHARED_AFTER[name] else 2)
        writer.close()


async def test_a_connection_that_was_kept_for_a_client_is_used_by_it_and_closed_with_it() -> None:
    async with world() as it:
        it.add_route("u")
        closed = asyncio.Semaphore(0)

        async def serve_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            finally:
                closed.release()

        it.exchange = serve_head
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                writer.write(get("/t/", method="HEAD"))
                await reader.readuntil(b"\r\n\r\n")
            assert it.connections == 1
            # To another backend.
            writer.write(get("/u/", method="HEAD"))
            await reader.readuntil(b"\r\n\r\n")
            await closed.acquire()
            assert it.connections == 2
            writer.close()
            await closed.acquire()
            while it.service.pool.open:
                await asyncio.sleep(0.01)
