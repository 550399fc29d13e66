"""Tunnels that one side has half-closed, does not read, or has left: each ends, and a quiet one does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.certificates import Authority
from harness.proxy_world import LIMIT_S, World, get, world
from plane.settings import ProxyLimits

UPGRADE = get("/t/", "Connection: Upgrade", "Upgrade: raw")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
SHORT = ProxyLimits(body_s=0.2, sweep_interval_s=0.05)
# More than the buffers of two kernels and of the proxy take.
FLOOD_BYTES = 32 * 1024 * 1024


class Backend:
    """Switches protocols, then does nothing of its own accord: it does not read, and does not end its direction."""

    def __init__(self, it: World) -> None:
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.switched = asyncio.Event()
        self._release = asyncio.Event()
        it.exchange = self._exchange

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        self.reader, self.writer = reader, writer
        self.switched.set()
        await self._release.wait()

    def end(self) -> None:
        self.writer.transport.abort()
        self._release.set()


@contextlib.asynccontextmanager
async def tunnel(
    it: World, *, more: bytes = b"", limit: int = 65536
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Backend]]:
    """An open tunnel: the client's reader and writer, and the backend."""
    backend = Backend(it)
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=limit)
    writer.write(UPGRADE + more)
    async with asyncio.timeout(LIMIT_S):
        await reader.readuntil(b"\r\n\r\n")
        await backend.switched.wait()
    try:
        yield reader, writer, backend
    finally:
        writer.transport.abort()
        backend.end()


async def until_gone(it: World) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(it.service.tunnels):
            await asyncio.sleep(0.02)


async def pour(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        for _ in range(FLOOD_BYTES // 65536):
            writer.write(bytes(65536))
            await writer.drain()


@pytest.mark.parametrize("closes", ["client", "backend"])
async def test_a_half_closed_tunnel_ends_when_the_other_side_is_silent(closes: str) -> None:
    async with world(limits=SHORT) as it, tunnel(it) as (reader, writer, backend):
        (writer if closes == "client" else backend.writer).write_eof()
        await until_gone(it)
        # The other side sees the end, too.
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):
                assert await (backend.reader if closes == "client" else reader).read(1) == b""


async def test_a_tunnel_whose_client_ended_its_direction_before_the_switch_ends() -> None:
    async with world(limits=SHORT) as it:
        backend = Backend(it)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(UPGRADE + b"and early bytes")
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\n")
            await backend.switched.wait()
            # The backend learns of the end after what was sent before it.
            assert await backend.reader.read(-1) == b"and early bytes"
        await until_gone(it)
        writer.close()
        backend.end()


async def test_a_half_closed_tunnel_lasts_while_bytes_come() -> None:
    async with world(limits=SHORT) as it, tunnel(it) as (reader, writer, backend):
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            # For several times the limit.
            for _ in range(20):
                await asyncio.sleep(0.04)
                backend.writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            backend.writer.write_eof()
            assert await reader.read(-1) == b""
        await until_gone(it)


@pytest.mark.parametrize("stuck", ["client", "backend"])
async def test_a_tunnel_ends_when_a_side_does_not_read(stuck: str) -> None:
    async with world(limits=SHORT) as it, tunnel(it, limit=1024) as (_, writer, backend):
        pouring = asyncio.create_task(pour(backend.writer if stuck == "client" else writer))
        await until_gone(it)
        await asyncio.wait([pouring], timeout=LIMIT_S)
        assert pouring.done()


async def test_unsent_bytes_for_a_stuck_backend_do_not_keep_its_connection_open() -> None:
    async with world(limits=SHORT) as it, tunnel(it) as (_, writer, backend):
        pouring = asyncio.create_task(pour(writer))
        async with asyncio.timeout(LIMIT_S):
            while not it.service.tunnels._limited:
                await asyncio.sleep(0.01)
            # The client is gone. Nobody reads on its side, and the proxy's buffer for the backend is full.
            writer.transport.abort()
        await until_gone(it)
        assert not it.service.tunnels._limited
        await asyncio.wait([pouring], timeout=LIMIT_S)
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(backend.reader.read(65536), LIMIT_S):
                pass


async def test_an_idle_tunnel_stays_open() -> None:
    async with world(limits=SHORT) as it, tunnel(it) as (reader, _, backend):
        await asyncio.sleep(1.0)
        backend.writer.write(b"still here")
        async with asyncio.timeout(LIMIT_S):
            assert await reader.readexactly(10) == b"still here"


async def test_a_slow_reader_of_a_tunnel_gets_every_byte() -> None:
    size = 8 * 1024 * 1024
    async with world(limits=SHORT) as it, tunnel(it, limit=1024) as (reader, _, backend):
        data = bytes(range(256)) * (size // 256)
        backend.writer.write(data)
        got = bytearray()
        async with asyncio.timeout(60):
            while len(got) < size // 2:
                got += await reader.read(65536)
                await asyncio.sleep(0.02)
            while len(got) < size:
                got += await reader.read(1024 * 1024)
        assert bytes(got) == data


async def test_connections_have_the_kernels_limit_on_both_sides_and_through_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with world(https_port=0, tls_pair=authority.pair(authority.issue())) as it:
        backend = Backend(it)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", it.https_port, ssl=authority.client(), server_hostname="localhost"
        )
        writer.write(UPGRADE)
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\n")
        ((open_tunnel,),) = it.service.tunnels._by_backend.values()
        for transport in (open_tunnel.client, open_tunnel.backend):
            connection = transport.get_extra_info("socket")
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        writer.transport.abort()
        backend.end()
