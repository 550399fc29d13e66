"""The last part of what a backend has written, bounded."""

from __future__ import annotations

from asyncio import StreamReader
from collections import deque

__all__ = ["OutputTail"]

KEPT_BYTES = 64 * 1024
# What of it goes into a message to people.
SHOWN_BYTES = 2_000
READ_BYTES = 16 * 1024


class OutputTail:
    """Keeps the last 64 KiB."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0

    async def read_from(self, stream: StreamReader) -> None:
        """Read to the end; what is not kept is dropped, so that the backend never waits for a reader."""
        while chunk := await stream.read(READ_BYTES):
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= KEPT_BYTES:
                self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        """The last 2,000 bytes as text, from the beginning of a line where there is one."""
        kept = b"".join(self._chunks)
        shown = kept[-SHOWN_BYTES:]
        if len(kept) > len(shown) and b"\n" in shown:
            shown = shown.split(b"\n", 1)[1]
        # NUL can be stored neither by PostgreSQL nor shown.
        return shown.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
