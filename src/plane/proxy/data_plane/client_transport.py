"""A client's transport, there or gone: what may be done with it at any time, in any order, its end included.

`client_connection` decides what is read and written; here is only that a transport that has gone, is closing or does
not read already needs no care, and that a client that is still sending gets to read what it was told.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

__all__ = ["ClientTransport"]

# On, for no time: closing drops what is not sent, and resets the connection (socket(7), SO_LINGER).
_NO_LINGER = struct.pack("ii", 1, 0)


class ClientTransport(asyncio.Protocol):
    """Base of the protocol of a client's connection.

    Attributes:
        lingering: everything has been said; what still comes is thrown away, until the client ends or a limit is over.
    """

    __slots__ = ("_reading_paused", "_transport", "lingering")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reading_paused = False
        self.lingering = False

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

    def _reset_on_close(self) -> None:
        """Have the client see an error, and no regular end, when the connection is closed."""
        connection = None if self._transport is None else self._transport.get_extra_info("socket")
        if connection is not None:
            # One that is just being closed cannot be changed any more.
            with suppress(OSError, ValueError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def _end(self, *, still_sending: bool) -> None:
        """Close when everything is written.

        A connection that is closed while bytes are unread is reset, and the reset may overtake the answer: so one
        whose client is still sending is closed in our direction alone at first (RFC 9112, section 9.6).
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if still_sending and transport.can_write_eof():
            self.lingering = True
            self._resume_reading()
            transport.write_eof()
        else:
            transport.close()
