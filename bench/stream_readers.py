"""A thousand readers of server-sent events, as cheap as Python can make them: sockets, one epoll, a thread."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StreamReaders"]

LIMIT_S = 30.0


class StreamReaders:
    """Connections on which the same has been asked. A method's work is done in a thread: it is not the loop's."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._epoll = select.epoll()
        # What has come on each since something was last found in it.
        self._unread: dict[int, bytes] = {}
        for connection in connections:
            self._epoll.register(connection, select.EPOLLIN)
            self._unread[connection.fileno()] = b""

    async def until_all_saw(self, wanted: bytes) -> list[float]:
        """When each of them had read ``wanted``, on the clock of `time.perf_counter`, in order.

        Raises:
            TimeoutError, ConnectionError: some never will.
        """
        return await asyncio.to_thread(self._until_all_saw, wanted)

    def _until_all_saw(self, wanted: bytes) -> list[float]:
        times: list[float] = []
        while len(times) < len(self._unread):
            ready = self._epoll.poll(LIMIT_S)
            if not ready:
                raise TimeoutError(f"{len(self._unread) - len(times)} of the readers did not see {wanted!r}")
            for number, _ in ready:
                read = os.read(number, 65536)
                seen = time.perf_counter()
                if not read:
                    raise ConnectionError(f"a stream ended before {wanted!r}")
                text = self._unread[number] + read
                if wanted in text:
                    times.append(seen)
                    text = b""
                self._unread[number] = text
        return times


@contextmanager
def stream_readers(port: int, path: str, count: int) -> Iterator[StreamReaders]:
    """So many readers of the stream at ``path``."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    connections = []
    try:
        for _ in range(count):
            connections.append(socket.create_connection(("127.0.0.1", port), LIMIT_S))
            connections[-1].sendall(request)
        yield StreamReaders(connections)
    finally:
        for connection in connections:
            connection.close()
