"""A port whose connections begin with a TLS handshake. `entry_points` opens it.

The event loop accepts connections and performs handshakes. This counts the handshakes, from the acceptance on, and
bounds them as `handshake_port` does. That one is for connections that begin with a PROXY header: it accepts them by
itself and has a task for each, which takes 6 % to 9 % more CPU time for a connection with one request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial

import structlog
from uvloop.loop import SSLProtocol  # type: ignore[attr-defined] # not in its stubs; like asyncio.sslproto.SSLProtocol

from plane.proxy.data_plane import limits
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.service import ProxyService
from plane.throttled_log import ThrottledWarning

__all__ = ["TlsPort"]

# The wait after accepting failed for lack of a resource of the system.
PAUSE_S = 1.0

log = structlog.get_logger("plane.proxy")


class TlsPort:
    """A listening socket, and its connections until their handshake is complete. Then `ClientConnection` has them."""

    def __init__(self, listening: socket.socket, backlog: int, service: ProxyService, context: ssl.SSLContext) -> None:
        self._listening = listening
        self._backlog = backlog
        self._service = service
        self._context = context
        self._full = ThrottledWarning(log, "at the limit of TLS handshakes; new connections wait")
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._closed = False
        # Handshakes in progress of this port, so that one of them ends after the limit was reached.
        self._handshakes = 0
        self._reached_limit = asyncio.Event()
        self._handshake_ended = asyncio.Event()

    async def open(self) -> None:
        """Accept connections.

        Raises:
            OSError: the system has no file left.
        """
        # The event loop closes the socket that it is given. The other one keeps the kernel's queue of connections.
        listening = self._listening.dup()
        self._server = await self._loop.create_server(self._new_connection, sock=listening, backlog=self._backlog)

    async def run(self) -> None:
        """Have further connections wait in the kernel's queue while there are too many handshakes, until cancelled."""
        while True:
            await self._reached_limit.wait()
            self._reached_limit.clear()
            if self._server is not None:
                self._server.close()
            self._full.warn(limit=limits.HANDSHAKES_LIMIT)
            while self._handshakes >= limits.HANDSHAKES_LIMIT:
                self._handshake_ended.clear()
                await self._handshake_ended.wait()
            await self._open_again()

    async def _open_again(self) -> None:
        while not self._closed:
            try:
                await self.open()
            except OSError as error:
                log.error("cannot accept connections; trying again", error=str(error), wait_s=PAUSE_S)
                await asyncio.sleep(PAUSE_S)
            else:
                return

    def close(self) -> None:
        """Accept no more connections. Handshakes in progress belong to the service, and continue."""
        self._closed = True
        if self._server is not None:
            self._server.close()

    def _new_connection(self) -> asyncio.BaseProtocol:
        """Return the protocol of a connection that is being accepted."""
        service = self._service
        if not service.has_room():
            return _Refused()
        handshake: asyncio.Future[None] = self._loop.create_future()
        # `create_server(ssl=…)` does the same, but does not tell when a handshake fails.
        protocol: asyncio.Protocol = SSLProtocol(
            self._loop,
            service.new_connection(EntryPoint.TLS),
            self._context,
            handshake,
            server_side=True,
            ssl_handshake_timeout=limits.HANDSHAKE_LIMIT_S,
            ssl_shutdown_timeout=limits.TLS_CLOSE_LIMIT_S,
        )
        service.handshakes.add(handshake)
        handshake.add_done_callback(partial(self._ended, protocol))
        self._handshakes += 1
        if self._handshakes >= limits.HANDSHAKES_LIMIT:
            self._reached_limit.set()
        return protocol

    def _ended(self, protocol: asyncio.Protocol, handshake: asyncio.Future[None]) -> None:
        self._handshakes -= 1
        self._handshake_ended.set()
        if handshake.cancelled():
            # As if the client had closed the connection.
            protocol.eof_received()


class _Refused(asyncio.Protocol):
    """A connection for which no file is left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport, though they have its methods.
        transport.abort()  # type: ignore[attr-defined]
