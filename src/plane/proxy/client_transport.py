"""A client's transport, there or gone: what may be done with it at any time, in any order.

`client_connection` decides what is read and written; here is only that a transport that has gone, is closing or does
not read already needs no care.
"""

from __future__ import annotations

import asyncio

__all__ = ["ClientTransport"]


class ClientTransport(asyncio.Protocol):
    """Base of the protocol of a client's connection."""

    __slots__ = ("_reading_paused", "_transport")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reading_paused = False

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
