"""Stands between a controller and PostgreSQL and counts the round trips: how often an answer is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = ["PostgresRelay", "postgres_relay"]

# What ends a request in PostgreSQL's protocol: Sync of the extended query, and the simple Query.
_ENDS = (ord("S"), ord("Q"))


class PostgresRelay:
    """``url`` leads through it; ``round_trips`` counts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.round_trips = 0
        # Seconds that pass before a client learns that the server has ended its connection.
        self.fin_after_s = 0.0

    async def forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass what a client says, message by message."""
        # The first message has no type.
        size = await source.readexactly(4)
        sink.write(size + await source.readexactly(int.from_bytes(size) - 4))
        while True:
            head = await source.readexactly(5)
            sink.write(head + await source.readexactly(int.from_bytes(head[1:]) - 4))
            self.round_trips += head[0] in _ENDS


async def _backward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)


@asynccontextmanager
async def postgres_relay(url: str) -> AsyncIterator[PostgresRelay]:
    """A relay to the database of ``url``, while the block runs."""
    parts = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()
    connections: set[asyncio.Task[Any]] = set()
    ending = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        connections.add(connection)
        connection.add_done_callback(connections.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(relay.forward(reader, server_writer)),
            asyncio.create_task(_backward(server_reader, writer)),
        ]
        tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if ways[1].done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(relay.fin_after_s):
                    await ending.wait()
        for end in (writer, server_writer):
            end.close()
        await asyncio.gather(*ways, return_exceptions=True)
        tasks.difference_update(ways)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    relay = PostgresRelay(urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{port}", query="sslmode=disable")))
    try:
        yield relay
    finally:
        listener.close()
        ending.set()
        for task in tasks:
            task.cancel()
        if connections:
            await asyncio.wait(connections)
        await listener.wait_closed()
