"""Streams of pages on a real server: bounded in number, ended with their session, dropped when they stall."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from plane.controller.api.stream_registry import StreamRegistry
from plane.controller.console.streams import Mailbox, PageStreams, encode_event
from plane.protocol.errors import ApiFailure


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_page_gets_its_events_until_its_session_ends() -> None:
    streams, mailbox, admitted = PageStreams(StreamRegistry(), keepalive_s=0.01), Mailbox(), [True]
    mailbox.put("a", encode_event("fragment", "x"))

    async def send(request: web.Request) -> web.StreamResponse:
        return await streams.send(request, mailbox, lambda: admitted[0])

    async with served(send) as url, aiohttp.ClientSession() as http, http.get(url) as response:
        assert await response.content.readuntil(b"\n\n") == encode_event("fragment", "x")
        assert await response.content.readuntil(b"\n\n") == b":\n\n"
        assert len(streams) == 1
        admitted[0] = False
        rest = await response.content.read()
        assert rest.endswith(encode_event("signed-out", ""))
    assert len(streams) == 0


async def test_the_number_of_streams_is_bounded() -> None:
    streams = PageStreams(StreamRegistry(), max_streams=2)
    async with streams.entered(), streams.entered():
        with pytest.raises(ApiFailure, match="Too many pages") as failure:
            async with streams.entered():
                pass
        assert failure.value.status == 503
    async with streams.entered():
        assert len(streams) == 1


async def test_a_stream_of_others_is_aborted_when_its_session_ends() -> None:
    streams, admitted = PageStreams(StreamRegistry(), keepalive_s=0.01), [True]

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        async with streams.ended_with_session(request, lambda: admitted[0]):
            await response.prepare(request)
            while True:
                await response.write(b"line\n")
                await asyncio.sleep(0.01)

    async with served(endless) as url, aiohttp.ClientSession() as http, http.get(url) as response:
        assert await response.content.readexactly(5) == b"line\n"
        admitted[0] = False
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10):
                await response.content.read()


async def test_a_page_that_reads_nothing_is_dropped() -> None:
    streams, mailbox = PageStreams(StreamRegistry(), write_timeout_s=0.2), Mailbox()
    mailbox.put("a", encode_event("fragment", "x" * 10_000_000))

    async def send(request: web.Request) -> web.StreamResponse:
        return await streams.send(request, mailbox, lambda: True)

    async with served(send) as url:
        port = int(url.rpartition(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(10):
                while len(streams) == 0:
                    await asyncio.sleep(0.01)
                while len(streams) == 1:
                    await asyncio.sleep(0.01)
