"""What RFC 9110 and 9112 have an intermediary do between two well-behaved sides."""

from __future__ import annotations

import asyncio
import random

import pytest

from harness.proxy_world import CLUSTER, LIMIT_S, OK, get, says, status, world


async def test_the_backend_responds_to_expect_100_continue() -> None:
    async with world() as it:

        async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            it.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            it.heard.append(await reader.readexactly(5))
            writer.write(OK)

        it.exchange = go_on
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Expect: 100-continue", "Content-Length: 5", method="PUT"))
        async with asyncio.timeout(LIMIT_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
        writer.close()
        assert b"\r\nExpect: 100-continue\r\n" in it.heard[0]
        assert it.heard[1] == b"hello"


async def test_a_refused_expectation_ends_the_connection() -> None:
    async with world() as it:

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
            await reader.read(-1)

        it.exchange = refuse
        # The client does not send the body after this response, so the next bytes must not be taken for one.
        request = get("/t/", "Expect: 100-continue", "Content-Length: 5", method="PUT")
        response = await it.send(request)
        assert status(response) == 417
        assert b"\r\nConnection: close\r\n" in response


async def test_trailers_pass_both_ways() -> None:
    body = b"5\r\nhello\r\n0\r\nDigest: abc\r\nX-Mine: 1\r\n\r\n"
    async with world() as it:

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            it.heard.append(await reader.readexactly(len(body)))
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n" + body)

        it.exchange = echo
        response = await it.send(get("/t/", "Transfer-Encoding: chunked", "Trailer: Digest", method="POST") + body)
        assert it.heard == [body]
        assert response.endswith(b"\r\n\r\n" + body)


async def test_forged_trailers_are_dropped_both_ways() -> None:
    forged = b"X-Verified-User: eve\r\nX.Verified.Username: eve\r\nForwarded: for=6.6.6.6\r\nX.Real_IP: 6.6.6.6\r\n"
    body = b"2\r\nok\r\n0\r\n" + forged + b"Digest: abc\r\nx_forwarded_for: 6.6.6.6\r\n\r\n"
    kept = b"2\r\nok\r\n0\r\nDigest: abc\r\n\r\n"
    async with world() as it:

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            it.heard.append(await reader.readexactly(len(kept)))
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)

        it.exchange = echo
        response = await it.send(get("/t/", "Transfer-Encoding: chunked", method="POST") + body)
        assert it.heard == [kept]
        assert response.endswith(b"\r\n\r\n" + kept)


async def test_connection_close_of_each_side() -> None:
    async with world() as it:

        async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            it.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

        it.exchange = close_after
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                # The backend's end is the backend's: this connection goes on, with a new one behind it.
                writer.write(get())
                assert b"Connection: close" not in await reader.readuntil(b"\r\n\r\nok")
            assert it.connections == 3
            writer.write(get("/t/", "Connection: close"))
            assert b"\r\nConnection: close\r\n" in await reader.read(-1)
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    ],
)
async def test_a_response_to_head_has_no_body_and_the_next_request_is_served(said: bytes) -> None:
    async with world() as it:

        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(said)

        it.exchange = say
        response = await it.send(get(method="HEAD") * 2)
        assert response.count(b"HTTP/1.1 ") == 2
        assert it.connections == 1
        for line in said.split(b"\r\n")[1:-2]:
            assert response.count(b"\r\n" + line + b"\r\n") == 2


async def test_a_truncated_response_stays_visibly_truncated() -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        response = await it.send(get() + get("/t/next"))
        assert response.endswith(b"5\r\nhel")
        assert response.count(b"HTTP/1.1 ") == 1


async def test_bytes_after_a_response_reach_no_client() -> None:
    async with world() as it:

        async def too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK + b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await reader.read(-1)

        it.exchange = too_much
        responses = [await it.send(get("/t/", "Connection: close")) for _ in range(3)]
        assert [status(response) for response in responses] == [200] * 3
        assert b"Poison" not in b"".join(responses)
        assert it.connections == 3


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_version_keeps_its_own_rules_of_persistence(version: str) -> None:
    request = f"GET /t/ {version}\r\nHost: {CLUSTER}\r\n".encode()
    async with world() as it:
        kept = await it.send((request + b"Connection: keep-alive\r\n\r\n") * 2)
        assert kept.count(b"HTTP/1.1 200") == 2
        plain = await it.send((request + b"\r\n") * 2)
        assert plain.count(b"HTTP/1.1 200") == (1 if version == "HTTP/1.0" else 2)


async def test_an_upgrade_that_the_backend_declines_is_an_ordinary_exchange() -> None:
    async with world() as it:
        response = await it.send(get("/t/", "Connection: Upgrade", "Upgrade: anything") + get("/t/next"))
        assert response.count(b"HTTP/1.1 200") == 2
        assert b"\r\nUpgrade: anything\r\n" in it.heard[0]
        assert b"Upgrade" not in it.heard[1]


async def test_a_tunnel_passes_any_bytes_both_ways_at_once() -> None:
    size = 8_000_000
    sent = {name: random.Random(name).randbytes(size) for name in ("client", "backend")}
    got = {}

    async def send_and_read(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send() -> None:
            position, sizes = 0, random.Random(name)
            while position < size:
                step = sizes.choice((1, 100, 70_000, 300_000))
                writer.write(sent[name][position : position + step])
                await writer.drain()
                position += step
            writer.write_eof()

        _, got[name] = await asyncio.gather(send(), reader.read(-1))

    async with world() as it:

        async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
            await send_and_read("backend", reader, writer)

        it.exchange = switch
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Connection: Upgrade", "Upgrade: raw"))
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            await send_and_read("client", reader, writer)
            while "backend" not in got:
                await asyncio.sleep(0.01)
        writer.close()
    assert got["client"] == sent["backend"]
    assert got["backend"] == sent["client"]


async def test_large_uploads_arrive_complete_and_with_backpressure() -> None:
    size = 30_000_000
    async with world() as it:

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            total = 0
            while total < size:
                total += len(await reader.read(1_000_000))
            it.heard.append(str(total).encode())
            writer.write(OK)

        it.exchange = slowly
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", f"Content-Length: {size}", method="POST"))
        async with asyncio.timeout(30):
            for _ in range(size // 1_000_000):
                writer.write(bytes(1_000_000))
                await writer.drain()
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
        writer.close()
        assert it.heard == [str(size).encode()]
