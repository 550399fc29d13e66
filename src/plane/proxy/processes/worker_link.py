"""What a proxy and its workers tell each other: the messages of page 2, a line of JSON each, over a pair of sockets.

To a worker its proxy is the controller; only that the connection to the real one came or went is said in words of our
own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, TypeVar

from plane.protocol import codec
from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy

__all__ = ["Connection", "FromWorker", "ToWorker", "WorkerLink"]

LINE_LIMIT_BYTES = 16 * 1024 * 1024

Connection = Literal["Connected", "Disconnected"]
ToWorker = Connection | MessageToProxy
FromWorker = MessageFromProxy

In = TypeVar("In")


class WorkerLink(Generic[In]):
    """One end of the pair. It ends when the process at the other end does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._kind = kind

    @classmethod
    async def over(cls, pair: socket.socket, kind: Any) -> WorkerLink[In]:
        """The end that is ``pair``; ``kind`` is the type of what comes in."""
        reader, writer = await asyncio.open_connection(sock=pair, limit=LINE_LIMIT_BYTES)
        return cls(reader, writer, kind)

    def say(self, message: ToWorker | FromWorker) -> None:
        """Send, without waiting."""
        self._writer.write(codec.encode(message) + b"\n")

    @property
    def unread_bytes(self) -> int:
        """What the other end has not read yet."""
        return self._writer.transport.get_write_buffer_size()

    async def flushed(self) -> None:
        """Wait while the other end reads slowly."""
        await self._writer.drain()

    async def heard(self) -> AsyncIterator[In]:
        """What the other end says, until it ends."""
        try:
            while line := await self._reader.readline():
                message: In = codec.decode(line, self._kind)
                yield message
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    def close(self) -> None:
        """End it."""
        self._writer.close()
