"""The messages between a proxy and its workers: lines of JSON over a pair of sockets.

They are those of a proxy's node socket, since to a worker its proxy is the controller. In addition the proxy reports
whether it is connected to the real controller.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
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
    """One end of the pair. It ends with the process at the other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._kind = kind

    @classmethod
    async def over(cls, pair: socket.socket, kind: Any) -> WorkerLink[In]:
        """Return the link over ``pair``. ``kind`` is the type of received messages."""
        reader, writer = await asyncio.open_connection(sock=pair, limit=LINE_LIMIT_BYTES)
        return cls(reader, writer, kind)

    def send(self, message: ToWorker | FromWorker) -> None:
        """Send a message without waiting."""
        self._writer.write(codec.encode(message) + b"\n")

    @property
    def unread_bytes(self) -> int:
        """The bytes that the other end has not read yet."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def is_read(self) -> bool:
        """Whether the other end, if it is there, has read everything. Bytes in the kernel's buffer are unread, too."""
        if self._writer.is_closing():
            return True
        queued = fcntl.ioctl(self._writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self.unread_bytes == 0 and int.from_bytes(queued, sys.byteorder) == 0

    async def drain(self) -> None:
        """Wait while the other end reads slowly."""
        await self._writer.drain()

    async def messages(self) -> AsyncIterator[In]:
        """Yield the received messages until the other end closes."""
        try:
            while line := await self._reader.readline():
                message: In = codec.decode(line, self._kind)
                yield message
        except (ConnectionError, asyncio.IncompleteReadError):
            return

    def close(self) -> None:
        """Close the link."""
        self._writer.close()
