"""Connections that send no request are closed, and do not block others."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from harness.controllers import controller_api
from harness.ports import free_port
from harness.program import PLANE
from plane.settings import ControllerLimits

SOCKETS = 1_024


@pytest.fixture
def many_files() -> Iterator[None]:
    """The test's own limit of open files, raised."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def until_healthy(http: aiohttp.ClientSession, base: str) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with http.get(f"{base}/pub/health") as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(0.05)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("hard_limit", ["unchanged", "1024"])
@pytest.mark.parametrize("first_bytes", [b"", b"POST /ctrl/connect HTTP/1.1\r\nHost: a"], ids=["silent", "slow"])
async def test_connections_without_a_request_do_not_block_others(
    postgres_url: str, tmp_path: Path, many_files: None, hard_limit: str, first_bytes: bytes
) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    limits = "ulimit -S -n 1024" if hard_limit == "unchanged" else "ulimit -n 1024"
    command = f'{limits}; exec "$@"'
    with (tmp_path / "log").open("wb") as log:
        controller = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, "sh", PLANE, "controller", "--db", postgres_url, "--port", str(port),
            stdout=log, stderr=log,
        )  # fmt: skip
    connections: list[socket.socket] = []
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            await until_healthy(http, base)
            for _ in range(SOCKETS):
                connections.append(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port)))
                connections[-1].setblocking(False)
                connections[-1].send(first_bytes)
            for _ in range(20):
                # A connection of its own each time.
                async with aiohttp.ClientSession() as user, user.get(f"{base}/pub/health") as answer:
                    assert answer.status == 200
            while not all(is_closed(connection) for connection in connections):
                await asyncio.sleep(0.1)
            async with http.get(f"{base}/pub/health") as answer:
                assert answer.status == 200
    finally:
        for connection in connections:
            connection.close()
        controller.terminate()
        await controller.wait()


async def test_persistent_connection_is_not_closed_between_requests(
    postgres_url: str,
) -> None:
    async with controller_api(postgres_url, limits=ControllerLimits(head_s=0.3)) as api:
        port = int(api.base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /pub/health HTTP/1.1\r\nHost: a\r\n\r\n"
        start = time.monotonic()
        for _ in range(2):
            writer.write(request)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.6)
        # Half a head: it is closed within its deadline, which begins with its first byte.
        writer.write(request[:20])
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while await reader.read(1000):
                    pass
        assert time.monotonic() - start > 1.2
        writer.close()
