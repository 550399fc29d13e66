"""Probes of real listeners: one at a time, with growing timeouts, and a message for each kind of failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.ports import free_port
from plane.runtime.base import StartupTimedOut
from plane.runtime.readiness import wait_until_ready

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HOST = "127.0.0.1"


@asynccontextmanager
async def listening(handle: Handle, port: int = 0) -> AsyncIterator[int]:
    handling: set[asyncio.Task[Any]] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        await handle(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handled, HOST, port)
    async with server:
        yield server.sockets[0].getsockname()[1]
        # The last probe's connection may still have to be accepted.
        await asyncio.sleep(0.02)
    await asyncio.gather(*handling)


def responding(data: bytes) -> Handle:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(data)

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (silent, "accepts connections and sends no response"),
        (responding(b""), "are closed without a response"),
        (responding(b"SSH-2.0-x\r\n"), "something that is not HTTP"),
        (responding(b"\x15\x03\x01\x00\x02\x02\x46"), "responds with TLS"),
    ],
)
async def test_the_timeout_message_describes_the_response(handle: Handle, message: str) -> None:
    async with listening(handle) as port:
        with pytest.raises(StartupTimedOut, match=message):
            # Time for a first probe even on a busy machine. What the deadline cuts short changes nothing.
            await wait_until_ready(HOST, port, 1.0, first_probe_timeout_s=0.9)


async def test_the_timeout_message_describes_a_missing_listener() -> None:
    with pytest.raises(StartupTimedOut, match="nothing listens on port"):
        await wait_until_ready(HOST, free_port(), 0.1)


async def test_a_slow_first_page_is_awaited_by_one_probe_at_a_time() -> None:
    open_now = most = probes = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most, probes
        probes += 1
        open_now += 1
        most = max(most, open_now)
        due = asyncio.create_task(asyncio.sleep(0.3))
        closed = asyncio.create_task(reader.read())
        await asyncio.wait([due, closed], return_when=asyncio.FIRST_COMPLETED)
        open_now -= 1
        if due.done():
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for task in (due, closed):
            task.cancel()

    async with listening(slow) as port:
        await wait_until_ready(HOST, port, 10.0, first_probe_timeout_s=0.05)
    assert most == 1
    # Of 0.05, 0.1, 0.2 and 0.4 s, or longer ones on a busy machine.
    assert probes >= 4


async def test_a_backend_that_listens_later_is_ready() -> None:
    port = free_port()
    probing = asyncio.create_task(wait_until_ready(HOST, port, 10.0))
    await asyncio.sleep(0.1)
    async with listening(responding(b"HTTP/1.0 200 OK\r\n\r\n"), port):
        await probing
