"""Bytes both ways, after a 101: each side's `data_received` is the other side's `write`.

No Python frame per message. Backpressure: a side that cannot write stops the other's reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["join"]


class _Side(asyncio.Protocol):
    """One end of a tunnel."""

    def __init__(self, peer: asyncio.Transport, both_over: Callable[[], bool], ended: Callable[[], None]) -> None:
        self._peer = peer
        self._both_over = both_over
        self._ended = ended
        # An attribute of the instance, so that the event loop calls the peer's transport itself.
        self.data_received = peer.write  # type: ignore[method-assign]

    def pause_writing(self) -> None:
        self._peer.pause_reading()

    def resume_writing(self) -> None:
        self._peer.resume_reading()

    def eof_received(self) -> bool:
        """One direction is over: pass that on, and keep the other open until it is over too."""
        if self._both_over() or not self._peer.can_write_eof():
            return False
        self._peer.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        # What has been written is still sent.
        self._peer.close()
        self._ended()


def join(client: asyncio.Transport, backend: asyncio.Transport, ended: Callable[[], None]) -> None:
    """Tunnel between the two until both are closed; ``ended`` is called once, when the first is."""
    told = False
    directions_over = 0

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            ended()

    def both_over() -> bool:
        nonlocal directions_over
        directions_over += 1
        return directions_over == 2

    client.set_protocol(_Side(backend, both_over, tell))
    backend.set_protocol(_Side(client, both_over, tell))
