"""One port of TLS: accepts connections, and counts them from there on, not only from the end of their handshake.

A client that connects and then says nothing would else hold a file that `service` knows nothing of, and nobody would
bound how many do. Opened by `entrances`.
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from plane.proxy import limits
from plane.proxy.service import ProxyService
from plane.proxy.tls import CertificateHolder

__all__ = ["TlsPort"]

# Connections accepted in a row before others have their turn.
ACCEPTED_AT_ONCE = 64
# Accepting failed for want of something of the system's, which does not come back at once.
PAUSE_S = 1.0
LOG_INTERVAL_S = 10.0

log = structlog.get_logger("plane.proxy")


class TlsPort:
    """A listening socket and its connections until they have shaken hands; then they are `ClientConnection`'s."""

    def __init__(self, listening: socket.socket, service: ProxyService, certificates: CertificateHolder) -> None:
        self._listening = listening
        self._service = service
        self._context = certificates.context
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._said_full_at = float("-inf")
        self._accepts = False
        self._closed = False
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more. Handshakes under way are the service's, and go on."""
        self._closed = True
        self._stop_accepting()
        if self._pause is not None:
            self._pause.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if len(self._service.handshakes) >= limits.HANDSHAKES_LIMIT:
                # More wait in the kernel's queue, until one of these ends.
                self._say_full()
                self._stop_accepting()
                return
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("connections cannot be accepted", error=str(error), again_in_s=PAUSE_S)
                self._stop_accepting()
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            if self._service.has_room():
                self._service.handshakes.start(self._shake_hands(accepted)).add_done_callback(self._resume)
            else:
                accepted.close()

    def _say_full(self) -> None:
        now = self._loop.time()
        if now - self._said_full_at >= LOG_INTERVAL_S:
            self._said_full_at = now
            log.warning("at the limit of TLS handshakes; new connections wait", limit=limits.HANDSHAKES_LIMIT)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                self._service.new_tls_connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=limits.HANDSHAKE_LIMIT_S,
                ssl_shutdown_timeout=limits.TLS_CLOSE_LIMIT_S,
            )
        except OSError as error:
            # The client's matter: it is gone, too slow, or speaks something else.
            log.debug("no TLS handshake", error=str(error))

    def _stop_accepting(self) -> None:
        if self._accepts:
            self._accepts = False
            self._loop.remove_reader(self._listening)

    def _resume(self, _: object = None) -> None:
        if not self._accepts and not self._closed:
            self._accepts = True
            self._loop.add_reader(self._listening, self._accept)
