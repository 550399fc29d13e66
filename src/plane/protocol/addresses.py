"""Socket addresses as they travel: ``IP:PORT``, IPv6 in brackets."""

from __future__ import annotations

import ipaddress

from plane.protocol.errors import MessageError

__all__ = ["format_socket_address", "parse_socket_address"]


def format_socket_address(host: str, port: int) -> str:
    """``127.0.0.1:8080`` or ``[::1]:8080``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_socket_address(text: str) -> tuple[str, int]:
    """IP and port of ``text``.

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
