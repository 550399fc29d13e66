"""A port behind a load balancer, whose connections begin with a PROXY header, followed by a TLS handshake or by HTTP.

It counts connections from their acceptance on, not only from the end of the handshake. A client that connects and sends
nothing would otherwise hold a file that `service` does not count, without any bound. `entry_points` opens it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import structlog

from plane.decisions.http.proxy_protocol import LARGEST_BYTES, MalformedProxyHeader, ProxyHeader, read_proxy_header
from plane.decisions.http.trusted_proxies import plain_address
from plane.proxy.data_plane import limits
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.service import ProxyService
from plane.throttled_log import ThrottledWarning

__all__ = ["HandshakePort"]

# Connections accepted in a row before other events are handled.
ACCEPTED_AT_ONCE = 64
# The wait after accepting failed for lack of a resource of the system.
PAUSE_S = 1.0

log = structlog.get_logger("plane.proxy")


class HandshakePort:
    """A listening socket, and its connections until their handshake is complete. Then `ClientConnection` has them.

    Args:
        entry_point: the kind of the port.
        context: the TLS context. None: plain HTTP, where only the PROXY header is a handshake.
    """

    def __init__(
        self, listening: socket.socket, service: ProxyService, entry_point: EntryPoint, context: ssl.SSLContext | None
    ) -> None:
        self._listening = listening
        self._service = service
        self._entry_point = entry_point
        self._context = context
        self._full = ThrottledWarning(log, "at the limit of TLS handshakes; new connections wait")
        self._no_header = ThrottledWarning(log, "connection of a trusted proxy without PROXY header; closed")
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._accepts = False
        self._closed = False
        # Handshakes in progress of this port, so that one of them ends after the limit was reached.
        self._handshakes = 0
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more connections. Handshakes in progress belong to the service, and continue."""
        self._closed = True
        self._stop_accepting()
        if self._pause is not None:
            self._pause.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._handshakes >= limits.HANDSHAKES_LIMIT:
                # Further connections wait in the kernel's queue until a handshake ends.
                self._full.warn(limit=limits.HANDSHAKES_LIMIT)
                self._stop_accepting()
                return
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("cannot accept connections; trying again", error=str(error), wait_s=PAUSE_S)
                self._stop_accepting()
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            if self._service.has_room():
                handshake = self._service.handshakes.start(self._handshake(accepted, address[0]))
                handshake.add_done_callback(self._handshake_ended)
                self._handshakes += 1
            else:
                accepted.close()

    async def _handshake(self, accepted: socket.socket, address: str) -> None:
        accepted.setblocking(False)
        try:
            header = await self._read_proxy_header(accepted, address)
        except (OSError, MalformedProxyHeader) as error:
            accepted.close()
            if isinstance(error, MalformedProxyHeader):
                self._no_header.warn(peer=address, reason=str(error))
            return
        except asyncio.CancelledError:
            accepted.close()
            raise
        timeouts = {}
        if self._context is not None:
            timeouts["ssl_handshake_timeout"] = limits.HANDSHAKE_LIMIT_S
            timeouts["ssl_shutdown_timeout"] = limits.TLS_CLOSE_LIMIT_S
        # What makes it fail is logged by the owner of this task.
        await self._loop.connect_accepted_socket(
            lambda: self._service.new_connection(self._entry_point, header), accepted, ssl=self._context, **timeouts
        )

    async def _read_proxy_header(self, accepted: socket.socket, address: str) -> ProxyHeader | None:
        """Read the PROXY header of a trusted proxy. Return None for peers that send none.

        No byte after the header is consumed: it belongs to HTTP or TLS.

        Raises:
            OSError: the peer is gone or too slow (a `TimeoutError` is an OSError).
            MalformedProxyHeader
        """
        service = self._service
        if not service.proxy_protocol or (plain_address(address) or "") not in service.trusted_proxies:
            return None
        header = b""
        async with asyncio.timeout(service.limits.head_s):
            while True:
                try:
                    part = accepted.recv(LARGEST_BYTES, socket.MSG_PEEK)
                except (BlockingIOError, InterruptedError):
                    await self._readable(accepted)
                    continue
                if not part:
                    raise ConnectionResetError("closed before the end of its PROXY header")
                found = read_proxy_header(header + part)
                header += accepted.recv(len(part) if found is None else found.size - len(header))
                if found is not None:
                    return found

    async def _readable(self, accepted: socket.socket) -> None:
        ready = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(accepted, wake)
        try:
            await ready
        finally:
            self._loop.remove_reader(accepted)

    def _handshake_ended(self, _: object) -> None:
        self._handshakes -= 1
        self._resume()

    def _stop_accepting(self) -> None:
        if self._accepts:
            self._accepts = False
            self._loop.remove_reader(self._listening)

    def _resume(self) -> None:
        if not self._accepts and not self._closed:
            self._accepts = True
            self._loop.add_reader(self._listening, self._accept)
