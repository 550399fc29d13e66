"""Which client is behind a load balancer, and which scheme and host did it use? Trusted proxies report it.

A proxy in front (``--trusted-proxies``) describes its client in `X-Forwarded-For`, `X-Forwarded-Proto` and
`X-Forwarded-Host`. Its client can send these fields too, and many proxies only append to them. So the chain of
addresses is read from its end: each address was added by the hop after it, and the first one that is not a trusted
proxy is the client. Everything before it was sent by the client, and is dropped. Of several schemes or hosts the last
one counts, which the nearest proxy added.

`request_head` reads the fields. `plane.proxy.data_plane.client_connection` applies them to requests of trusted peers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from plane.decisions.http.grammar import HOST

__all__ = [
    "NO_CLAIMS",
    "Claims",
    "Network",
    "TrustedProxies",
    "Visitor",
    "direct_visitor",
    "effective_host",
    "parse_networks",
    "plain_address",
    "visitor_behind",
]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Proxies between a client and this one. A chain may have as many addresses as a head has room for.
MOST_HOPS: Final = 32
# Addresses that are cached.
KNOWN_LIMIT: Final = 4096
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
# Some proxies append the client's port.
_WITH_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")


class Claims(NamedTuple):
    """The values of the three fields, those of several lines joined by commas; empty without one."""

    addresses: bytes
    scheme: bytes
    host: bytes


NO_CLAIMS: Final = Claims(b"", b"", b"")


class Visitor(NamedTuple):
    """The client of a request.

    Attributes:
        address: of the client.
        over_tls: whether the client's own connection is encrypted.
        host: the host that the client requested, if a trusted proxy reports another one than `Host`; else empty.
        fields: the lines that describe it to a backend, each begun by CR LF.
    """

    address: str
    over_tls: bool
    host: bytes
    fields: bytes


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return networks written as ``10.0.0.0/8``, ``fd00::/8`` or a single address; several may be joined by commas.

    Raises:
        ValueError: a text is not a network; the message has it.
    """
    return tuple(ipaddress.ip_network(part.strip()) for text in texts for part in text.split(","))


@lru_cache(maxsize=KNOWN_LIMIT)
def plain_address(text: str) -> str | None:
    """Return an IP address in its usual form: without port, brackets and zone, and IPv4 as such. None: malformed."""
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class TrustedProxies:
    """The proxies in front, by their networks. Addresses are those of `plain_address`."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        # Results by address: few proxies connect, and they do so often.
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= KNOWN_LIMIT:
                self._known.clear()
            known = self._known[address] = self._contains(address)
        return known

    def _contains(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            # A connection without an address.
            return False
        return any(parsed in network for network in self._networks)


def direct_visitor(address: str, *, over_tls: bool) -> Visitor:
    """Return the client of a connection whose peer is not a trusted proxy."""
    return Visitor(address, over_tls, b"", _fields(address, over_tls=over_tls))


def visitor_behind(peer: Visitor, claims: Claims, trusted: TrustedProxies) -> Visitor:
    """Return the client behind ``peer``, a trusted proxy. What it does not report is taken from itself."""
    hops = [peer.address]
    for entry in reversed(claims.addresses.rsplit(b",", MOST_HOPS)[-MOST_HOPS:] if claims.addresses else []):
        address = plain_address(entry.strip(b" \t").decode("latin-1"))
        if address is None:
            # Such as "unknown" (RFC 7239, section 6): the hop after it is the last known one.
            break
        hops.append(address)
        if address not in trusted:
            break
    scheme = _SCHEMES.get(_last(claims.scheme).lower())
    over_tls = peer.over_tls if scheme is None else scheme == "https"
    host = _last(claims.host)
    if not HOST.match(host):
        host = b""
    fields = _fields(", ".join(reversed(hops)), over_tls=over_tls)
    if host:
        fields += b"\r\nx-forwarded-host: " + host
    return Visitor(hops[-1], over_tls, host, fields)


def effective_host(host: bytes, claimed: bytes, cluster: bytes) -> bytes:
    """Return the host that a request is for: ``host`` of `Host`, or what a trusted proxy has ``claimed``.

    A proxy may have put a name of its own into `Host`. But a name of the cluster there is what the client requested.
    ``cluster`` in lower case and without ":443".
    """
    return host if _belongs_to(host, cluster) or not _belongs_to(claimed, cluster) else claimed


def _belongs_to(host: bytes, cluster: bytes) -> bool:
    name = host.lower().removesuffix(b":443")
    return name == cluster or name.endswith(b"." + cluster)


def _last(values: bytes) -> bytes:
    return values.rpartition(b",")[2].strip(b" \t")


def _fields(addresses: str, *, over_tls: bool) -> bytes:
    return f"\r\nx-forwarded-for: {addresses}\r\nx-forwarded-proto: {'https' if over_tls else 'http'}".encode()
