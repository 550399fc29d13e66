"""Requests that meet a connection which the backend closes, or has just closed: none fails for that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from harness.proxy_world import LIMIT_S, World, get, status, world

POST = get("/t/", "Content-Length: 4", method="POST") + b"data"


class Backend:
    """Serves requests on connections that it keeps open."""

    def __init__(self, it: World, fields: str = "") -> None:
        self._response = f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok".encode()
        it.exchange = self._exchange

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await reader.readexactly(4)
            writer.write(self._response)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()


@pytest.mark.parametrize("request_bytes", [get(), POST], ids=["GET", "POST"])
async def test_a_connection_is_used_again_at_once(request_bytes: bytes) -> None:
    async with world() as it:
        Backend(it)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(LIMIT_S), _closing(writer):
            for _ in range(3):
                writer.write(request_bytes)
                assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
            assert it.connections == 1


@pytest.mark.parametrize("request_bytes", [get(), POST], ids=["GET", "POST"])
async def test_a_connection_is_not_used_longer_than_the_backend_announces(request_bytes: bytes) -> None:
    async with world() as it:
        Backend(it, "Keep-Alive: timeout=1, max=50\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(LIMIT_S), _closing(writer):
            for connections in (1, 2):
                writer.write(request_bytes)
                assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
                assert it.connections == connections
                # Half of it is left for the request's way.
                await asyncio.sleep(0.55)


async def test_a_post_does_not_use_a_connection_that_has_been_free_for_long() -> None:
    async with world() as it:
        Backend(it)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        async with asyncio.timeout(LIMIT_S), _closing(writer):
            writer.write(POST)
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(1.1)
            writer.write(POST)
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
            assert it.connections == 2


async def test_a_post_that_meets_a_connection_just_closed_is_served() -> None:
    async with world() as it:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as backend, socket.socket() as client:
            for one in (backend, client):
                one.setblocking(False)
            it.add_route("t", address=f"127.0.0.1:{backend.getsockname()[1]}")
            await loop.sock_connect(client, ("127.0.0.1", it.port))
            async with asyncio.timeout(LIMIT_S):
                client.send(POST)
                for _ in range(10):
                    connection, _ = await loop.sock_accept(backend)
                    with connection:
                        got = b""
                        while not got.endswith(b"data"):
                            got += await loop.sock_recv(connection, 65536)
                        await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        response = b""
                        while not response.endswith(b"ok"):
                            response += await loop.sock_recv(client, 65536)
                        assert status(response) == 200
                        # The proxy gets the request before the end of the connection.
                        client.send(POST)
