"""Binds the ports of `plane dev`, and reports the process that uses one already."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from plane.decisions.dev.addresses import IPV4, IPV6, proxy_address
from plane.protocol.errors import ConfigurationError
from plane.transport.port_errors import port_error

__all__ = ["bind_ports", "localhost_address"]


@contextmanager
def bind_ports(*wanted: tuple[str, int, str]) -> Iterator[list[socket.socket]]:
    """Bind sockets without listening, so that no other program takes the ports while the cluster starts.

    Args:
        wanted: address, port and option of each.

    Raises:
        ConfigurationError: ports cannot be used; the message has the holder of each, and the option for another port.
    """
    with ExitStack() as stack:
        bound, failures = [], []
        for address, port, flag in wanted:
            listener = stack.enter_context(socket.socket(_family(address), socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError as error:
                failures.append(str(port_error(error, address, port, flag)))
            bound.append(listener)
        if failures:
            raise ConfigurationError("\n".join(failures))
        yield bound


def localhost_address() -> str:
    """Return the loopback address to which clients on this machine resolve ``localhost``."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    return proxy_address(found, has_ipv6=_can_bind(IPV6))


def _can_bind(address: str) -> bool:
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET if address == IPV4 else socket.AF_INET6
