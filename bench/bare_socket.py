"""The floor of two WebSocket messages: a server that sends each frame back, and a client that waits for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

__all__ = ["BareSocket", "bare_server"]

_MASK_BYTES = 4


class _Echo(asyncio.Protocol):
    """Sends back what it receives. Frames of this benchmark arrive in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class BareSocket(asyncio.Protocol):
    """A connection that sends one text frame at a time, without the handshake of HTTP: that happens once."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._echoed: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int) -> BareSocket:
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def round_trip(self, payload: bytes) -> bytes:
        """Send ``payload`` (up to 125 bytes) in a masked frame, and return what comes back."""
        self._echoed = asyncio.get_running_loop().create_future()
        self._transport.write(b"\x81" + bytes([0x80 | len(payload)]) + bytes(_MASK_BYTES) + payload)
        return await self._echoed

    def data_received(self, data: bytes) -> None:
        assert self._echoed is not None
        self._echoed.set_result(data)


@contextmanager
def bare_server() -> Iterator[int]:
    """Run the server in a process, and yield its port."""
    command = [sys.executable, "-m", "bench.bare_socket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve() -> None:
    """Serve on a free port, which is printed, until killed."""
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
