"""The floor of the status stream: ``python -m bench.bare_stream --port PORT``.

uvloop and nothing else. Who says GET is a reader, POST is answered as a sign that it runs, and what anyone else sends
is written to all readers.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Connection(asyncio.Protocol):
    readers: set[asyncio.Transport] = set()  # noqa: RUF012 - of the one server that there is

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            self._transport.write(HEAD)
            self.readers.add(self._transport)
        elif data.startswith(b"POST "):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            for reader in self.readers:
                reader.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.readers.discard(self._transport)


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[2])))
