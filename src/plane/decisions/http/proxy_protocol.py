"""Which client does a load balancer name at the start of a connection? Reads the PROXY protocol, versions 1 and 2.

The header comes before everything else, before TLS too. Specification: "The PROXY protocol, versions 1 & 2" (HAProxy).
`plane.proxy.listeners.handshake_port` reads it from trusted proxies only: any other peer could forge an address.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, NamedTuple

from plane.decisions.http.trusted_proxies import plain_address
from plane.protocol.errors import PlaneError

__all__ = ["LARGEST_BYTES", "MalformedProxyHeader", "ProxyHeader", "read_proxy_header"]

# A header of version 2: addresses, and extensions such as the client's certificate.
LARGEST_BYTES: Final = 16 * 1024
# Section 2.1.
_LARGEST_V1_BYTES: Final = 107

_V1_BEGINNING: Final = b"PROXY "
_V1: Final = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")

_V2_BEGINNING: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES: Final = 16
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
# By address family and transport: the size of both addresses, and of each. Those of Unix sockets name no client.
_V2_FAMILIES: Final = {
    0x00: (0, 0),
    0x11: (12, 4),
    0x12: (12, 4),
    0x21: (36, 16),
    0x22: (36, 16),
    0x31: (216, 0),
    0x32: (216, 0),
}
# An extension (section 2.2.6) and the bit of its first byte that is set if the client used TLS.
_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class MalformedProxyHeader(PlaneError):
    """The bytes are not a PROXY header."""


class ProxyHeader(NamedTuple):
    """A complete header.

    Attributes:
        size: its length in bytes.
        client: the client's address. None: the connection is the load balancer's own, such as a health check, or the
            client is not known.
        over_tls: whether the client's connection to the load balancer uses TLS.
    """

    size: int
    client: str | None
    over_tls: bool = False


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header at the start of ``data``; None if it is incomplete, so that all bytes belong to it.

    Raises:
        MalformedProxyHeader
    """
    if data[: len(_V2_BEGINNING)] == _V2_BEGINNING[: len(data)]:
        return _read_v2(data)
    if data[: len(_V1_BEGINNING)] == _V1_BEGINNING[: len(data)]:
        return _read_v1(data)
    raise MalformedProxyHeader("the connection does not begin with a PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, _LARGEST_V1_BYTES)
    if end < 0:
        if len(data) >= _LARGEST_V1_BYTES:
            raise MalformedProxyHeader("the line of version 1 is too long")
        return None
    line = data[: end + 1]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(len(line), None)
    found = _V1.fullmatch(line)
    if found is None or int(found[4]) > 65535 or int(found[5]) > 65535:
        raise MalformedProxyHeader("the line of version 1 is malformed")
    kind = ipaddress.IPv4Address if found[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        client, _ = kind(found[2].decode()), kind(found[3].decode())
    except ValueError:
        raise MalformedProxyHeader("an address of version 1 is malformed") from None
    return ProxyHeader(len(line), plain_address(str(client)))


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED_BYTES:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise MalformedProxyHeader("unknown version or command")
    size = _V2_FIXED_BYTES + length
    if size > LARGEST_BYTES:
        raise MalformedProxyHeader("the header is too large")
    if len(data) < size:
        return None
    if command == _LOCAL:
        # The rest of the header is to be ignored (section 2.2).
        return ProxyHeader(size, None)
    if family not in _V2_FAMILIES:
        raise MalformedProxyHeader("unknown address family or transport")
    both, each = _V2_FAMILIES[family]
    if length < both:
        raise MalformedProxyHeader("the addresses are cut short")
    client = plain_address(str(ipaddress.ip_address(data[16 : 16 + each]))) if each else None
    # Without a family the rest may be anything (section 2.2).
    over_tls = bool(family) and _came_by_tls(data[_V2_FIXED_BYTES + both : size])
    return ProxyHeader(size, client, over_tls)


def _came_by_tls(extensions: bytes) -> bool:
    """Return whether the extensions say that the client used TLS.

    Each has a type, a length in two bytes, and a value.
    """
    position, over_tls = 0, False
    while position < len(extensions):
        if len(extensions) - position < 3:
            raise MalformedProxyHeader("an extension is cut short")
        kind, length = struct.unpack_from("!BH", extensions, position)
        value = extensions[position + 3 : position + 3 + length]
        if len(value) < length:
            raise MalformedProxyHeader("an extension is cut short")
        if kind == _SSL:
            over_tls = bool(value) and bool(value[0] & _CLIENT_SSL)
        position += 3 + length
    return over_tls
