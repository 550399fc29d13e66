"""HTTP clients that cost next to nothing, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

__all__ = ["HttpClient", "Watcher", "http_post"]

_STATUS = re.compile(rb"\nid: (\S+)\n")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.I)


def http_post(path: str, body: bytes) -> bytes:
    """A request with a JSON body, as it is sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class HttpClient(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._data = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> HttpClient:
        """A connection to a server."""
        _, client = await asyncio.get_running_loop().create_connection(cls, host, port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            ConnectionError
        """
        return await self.ask(http_post(path, body))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer to a whole request.

        Raises:
            ConnectionError
        """
        if self._transport.is_closing():
            raise ConnectionError("the server has closed it")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        length = _LENGTH.search(self._data, 0, end)
        assert length is not None
        whole = end + 4 + int(length[1])
        if len(self._data) >= whole:
            answer, self._answer = self._answer, None
            answer.set_result((int(self._data[9:12]), self._data[end + 4 : whole]))
            self._data = self._data[whole:]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(ConnectionError("the server closed it before it answered"))
            self._answer = None

    def close(self) -> None:
        """End the connection."""
        self._transport.close()


class Watcher(asyncio.Protocol):
    """A reader of one backend's status stream."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._text = b""
        self._wanted: tuple[bytes, asyncio.Future[float]] | None = None
        self._lost = asyncio.Event()

    @classmethod
    async def open(cls, host: str, port: int, backend: str) -> Watcher:
        """A stream that has been asked for."""
        _, watcher = await asyncio.get_running_loop().create_connection(cls, host, port)
        watcher._transport.write(f"GET /pub/b/{backend}/status-stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return watcher

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def saw(self, status: str) -> float:
        """When the status was seen, on the clock of `time.perf_counter`."""
        self._wanted = f"id: {status}\n".encode(), asyncio.get_running_loop().create_future()
        self._look()
        return await self._wanted[1]

    def statuses(self) -> list[str]:
        """All that were seen, in order."""
        return [found.decode() for found in _STATUS.findall(self._text)]

    async def ended(self) -> None:
        """Return when the stream has ended in good order."""
        self._wanted = b"\r\n0\r\n\r\n", asyncio.get_running_loop().create_future()
        self._look()
        await self._wanted[1]

    async def lost(self) -> None:
        """Return when the connection is gone."""
        await self._lost.wait()

    def stall(self) -> None:
        """Read no more."""
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        self._text += data
        self._look()

    def _look(self) -> None:
        if self._wanted is not None and self._wanted[0] in self._text and not self._wanted[1].done():
            self._wanted[1].set_result(time.perf_counter())

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()
