"""Socket addresses on the wire (``IP:PORT``, IPv6 in brackets), and the loopback test."""

from __future__ import annotations

import functools
import ipaddress

from plane.protocol.errors import MessageError

__all__ = ["format_socket_address", "is_loopback", "parse_socket_address"]


def format_socket_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, for example ``127.0.0.1:8080`` or ``[::1]:8080``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# A proxy reads the address of a backend with each of its tokens.
@functools.lru_cache(maxsize=4_096)
def parse_socket_address(text: str) -> tuple[str, int]:
    """Return the IP address and the port of ``text``.

    Raises:
        MessageError: not an IP address with a port.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6) or not (port.isascii() and port.isdigit()):
            raise ValueError
        number = int(port)
        if number > 65535:
            raise ValueError
    except ValueError:
        raise MessageError(f"{text!r} is not IP:PORT") from None
    return str(address), number


def is_loopback(host: str) -> bool:
    """Return whether a host, an IP address or a name below ``localhost``, is this machine's loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
