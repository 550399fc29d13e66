"""The ports of a proxy: plain HTTP, or TLS beside a port that only redirects to it.

`serving` opens and closes them. The TLS port is bound at the start, so that a port in use is reported at once. It
listens once there is a certificate.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.data_plane.lost_peers import notice_lost_peer
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.listeners.handshake_port import HandshakePort
from plane.proxy.listeners.tls_port import TlsPort
from plane.proxy.service import ProxyService
from plane.tasks import run_together
from plane.transport.port_errors import port_error

__all__ = ["EntryPoints", "bind"]

ACCEPT_BACKLOG = 4096


@dataclass
class EntryPoints:
    """The bound sockets, and what listens on them. With ``https``, ``http`` only redirects."""

    http: Sequence[socket.socket]
    https: Sequence[socket.socket] = ()

    def __post_init__(self) -> None:
        self._open: list[asyncio.Server | HandshakePort | TlsPort] = []
        self._tls_ports: list[TlsPort] = []
        self._closed = False

    @property
    def http_port(self) -> int:
        """The port of plain HTTP."""
        return int(self.http[0].getsockname()[1])

    @property
    def https_port(self) -> int | None:
        """The port of TLS."""
        return int(self.https[0].getsockname()[1]) if self.https else None

    async def open_http(self, service: ProxyService) -> None:
        """Accept plain HTTP.

        Raises:
            ConfigurationError
        """
        entry_point = EntryPoint.TO_TLS if self.https else EntryPoint.HTTP
        loop = asyncio.get_running_loop()
        for bound in self.http:
            # Accepted connections inherit the setting.
            notice_lost_peer(bound, service.limits.lost_after_s)
            try:
                # uvloop does this too, but does not report an error.
                bound.listen(ACCEPT_BACKLOG)
                if service.proxy_protocol:
                    self._open.append(HandshakePort(bound, service, entry_point, None))
                else:
                    self._open.append(
                        await loop.create_server(
                            lambda: service.new_connection(entry_point), sock=bound, backlog=ACCEPT_BACKLOG
                        )
                    )
            except OSError as error:
                # Another program listened between the bind and this call.
                raise _no_port(error, bound, "--http-port") from error

    async def open_https(self, service: ProxyService, certificates: CertificateHolder) -> None:
        """Accept TLS once there is a certificate.

        Raises:
            ConfigurationError
        """
        await certificates.available()
        for bound in self.https:
            if self._closed:
                return
            notice_lost_peer(bound, service.limits.lost_after_s)
            try:
                bound.listen(ACCEPT_BACKLOG)
            except OSError as error:
                raise _no_port(error, bound, "--https-port") from error
            if service.proxy_protocol:
                self._open.append(HandshakePort(bound, service, EntryPoint.TLS, certificates.context))
            else:
                port = TlsPort(bound, ACCEPT_BACKLOG, service, certificates.context)
                self._open.append(port)
                self._tls_ports.append(port)
                await port.open()

    async def run(self) -> None:
        """Bound the handshakes of the TLS port, until cancelled."""
        if self._tls_ports:
            await run_together(*(port.run() for port in self._tls_ports))
        else:
            await asyncio.Event().wait()

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        for port in self._open:
            port.close()
        for bound in (*self.http, *self.https):
            bound.close()


def bind(host: str, port: int, flag: str, processes: int = 1) -> list[socket.socket]:
    """Return sockets bound to ``port`` on all addresses of ``host``, one for each process.

    Those of the first process are at 0, ``processes``, … ``flag`` is the option for the port, named in errors.

    Raises:
        ConfigurationError: the port cannot be used.
    """
    bound: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in addresses:
            # Port 0 is any free port for the first address, and the same port for the others. A port that processes
            # share is first bound without SO_REUSEPORT, so that it is not shared with another program by mistake.
            with _socket(family) as alone:
                alone.bind((address[0], port, *address[2:]))
                port = alone.getsockname()[1]
                if processes == 1:
                    bound.append(alone.dup())
            for _ in range(processes if processes > 1 else 0):
                shared = _socket(family)
                bound.append(shared)
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                shared.bind((address[0], port, *address[2:]))
    except OSError as error:
        for listening in bound:
            listening.close()
        raise port_error(error, host, port, flag) from error
    return bound


def _no_port(error: OSError, bound: socket.socket, flag: str) -> ConfigurationError:
    host, port = bound.getsockname()[:2]
    return port_error(error, host, port, flag)


def _socket(family: socket.AddressFamily) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.setblocking(False)
    return listening
