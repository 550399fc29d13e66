"""Ports of a proxy: each has a limit of handshakes, a closed one stays closed, and one that is taken is reported."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trustme

from harness.proxy_world import LIMIT_S, World, get, status, world
from plane.protocol.errors import ConfigurationError
from plane.proxy.data_plane import limits
from plane.proxy.listeners import tls_port
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.listeners.entry_points import EntryPoints, bind
from plane.proxy.listeners.handshake_port import HandshakePort
from plane.proxy.listeners.tls_port import TlsPort
from plane.proxy.service import ProxyService
from plane.tasks import end_tasks

Open = Callable[[socket.socket, ProxyService, ssl.SSLContext], TlsPort | HandshakePort]


def direct(listening: socket.socket, service: ProxyService, context: ssl.SSLContext) -> TlsPort:
    return TlsPort(listening, 16, service, context)


def behind_load_balancer(listening: socket.socket, service: ProxyService, context: ssl.SSLContext) -> HandshakePort:
    return HandshakePort(listening, service, EntryPoint.TLS, context)


@dataclass
class OpenPort:
    """A TLS port of a proxy beside those of its own."""

    number: int
    port: TlsPort | HandshakePort

    async def hold(self) -> asyncio.StreamWriter:
        """A client that connects, and sends nothing."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.number)
        return writer

    async def is_served(self) -> bool:
        """Whether a client gets a response."""
        context = ssl._create_unverified_context()
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.number, ssl=context)
            writer.write(get())
            response = await reader.readuntil(b"\r\n\r\nok")
        writer.close()
        return status(response) == 200


@asynccontextmanager
async def open_port(it: World, kind: Open) -> AsyncIterator[OpenPort]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = kind(listening, it.service, context)
        running = []
        if isinstance(port, TlsPort):
            await port.open()
            running.append(asyncio.create_task(port.run()))
        try:
            yield OpenPort(listening.getsockname()[1], port)
        finally:
            port.close()
            await end_tasks(running)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [direct, behind_load_balancer])
async def test_handshakes_of_one_port_do_not_block_another(monkeypatch: pytest.MonkeyPatch, kind: Open) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_LIMIT", 2)
    async with world() as it, open_port(it, kind) as full, open_port(it, kind) as other:
        held = [await full.hold() for _ in range(2)]
        await until(lambda: len(it.service.handshakes) == 2)
        for _ in range(2):
            assert await other.is_served()
        for writer in held:
            writer.close()
        assert await full.is_served()


@pytest.mark.parametrize("kind", [direct, behind_load_balancer])
async def test_a_closed_port_accepts_nothing_when_a_handshake_ends(monkeypatch: pytest.MonkeyPatch, kind: Open) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_LIMIT", 1)
    async with world() as it, open_port(it, kind) as one:
        held, waiting = await one.hold(), await one.hold()
        await until(lambda: len(it.service.handshakes) == 1)
        one.port.close()
        held.close()
        await until(lambda: not it.service.handshakes)
        for _ in range(10):
            await asyncio.sleep(0.02)
            assert not it.service.handshakes
        waiting.close()


async def test_a_port_is_opened_again_when_the_system_has_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKES_LIMIT", 1)
    monkeypatch.setattr(tls_port, "PAUSE_S", 0.05)
    failures = [OSError(errno.ENFILE, "Too many open files in system")] * 2
    open_port_really = TlsPort.open

    async def open_with_failures(port: TlsPort) -> None:
        if failures:
            raise failures.pop()
        await open_port_really(port)

    async with world() as it, open_port(it, direct) as one:
        monkeypatch.setattr(TlsPort, "open", open_with_failures)
        held = await one.hold()
        await until(lambda: len(it.service.handshakes) == 1)
        held.close()
        assert await one.is_served()
    assert "cannot accept connections; trying again" in "".join(capfd.readouterr())
    assert not failures


async def test_a_port_on_which_another_program_listens_is_reported() -> None:
    async with world() as it:
        entry_points = EntryPoints(bind("127.0.0.1", 0, "--http-port"))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", entry_points.http_port))
            other.listen()
            with pytest.raises(
                ConfigurationError, match=rf"port {entry_points.http_port} on 127\.0\.0\.1 is in use by .*--http-port"
            ):
                await entry_points.open_http(it.service)
        entry_points.close()
