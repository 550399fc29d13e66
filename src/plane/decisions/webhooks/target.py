"""Decides which URLs and addresses a webhook may have, so that nobody reaches internal services through a controller.

The URL is checked when the webhook is set. The address is checked when a connection to it is opened, whatever the name
resolved to: `plane.controller.webhooks.sender` does that for each socket.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from plane.decisions.http.trusted_proxies import Network
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["address_refusal", "check_webhook_name", "check_webhook_url"]

MAX_URL_LENGTH: Final = 2000

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Addresses of IPv6 that contain one of IPv4, which is the one that is reached: IPv4-mapped and IPv4-compatible (RFC
# 4291, section 2.5.5), NAT64 (RFC 6052 and 8215) and 6to4 (RFC 3056). With the number of bits after the IPv4 address.
_EMBEDDING: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("64:ff9b:1::/48"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)
# Networks that Python's `is_global` takes for public: protocol assignments, metadata of a cloud among them (RFC 6890),
# tunnels whose end is hidden in the address (Teredo, RFC 4380), site-local (RFC 3879) and documentation (RFC 9637).
_NEVER_PUBLIC: Final = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("fec0::/10"),
    ipaddress.ip_network("3fff::/20"),
)


def check_webhook_name(name: str) -> str:
    """Return the name.

    Raises:
        ApiFailure: 400.
    """
    if not _NAME.fullmatch(name):
        raise ApiFailure(
            400,
            ApiErrorKind.OTHER,
            f"the webhook's name {name[:80]!r} must have 1 to 63 of the characters a-z, 0-9 and -, the first one not -",
        )
    return name


def check_webhook_url(url: str, allowed: Sequence[Network]) -> str:
    """Return the URL of a webhook.

    Args:
        url: as given by an operator.
        allowed: networks that may be reached although they are not public.

    Raises:
        ApiFailure: 400 with the rule that the URL violates.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise _bad_url("it must begin with http:// or https://")
    if not parts.hostname or port == 0:
        raise _bad_url("it needs a host, and a port other than 0")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("it must not have a user or a password; the receiver checks the signature instead")
    if parts.fragment:
        raise _bad_url("it must not have a fragment (#)")
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise _bad_url(f"it must have at most {MAX_URL_LENGTH} printable ASCII characters, others percent-encoded")
    try:
        ipaddress.ip_address(parts.hostname)
    except ValueError:
        return url
    if (reason := address_refusal(parts.hostname, allowed)) is not None:
        raise _bad_url(reason)
    return url


def _bad_url(reason: str) -> ApiFailure:
    return ApiFailure(400, ApiErrorKind.OTHER, f"url: {reason}")


def address_refusal(address: str, allowed: Sequence[Network]) -> str | None:
    """Return why a webhook must not connect to an address; None if it may.

    Args:
        address: as in the socket's address. Every other form, such as 2130706433, is refused.
        allowed: networks that may be reached although they are not public.
    """
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address[:80]!r} is not an IP address"
    reached = _reached(given)
    if any(reached in network or given in network for network in allowed):
        return None
    if _is_public(reached):
        return None
    return f"the address {given} is not public; controllers send to networks of yours only with --webhook-allow-network"


def _reached(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of IPv4 inside one of IPv6, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:
        return address
    for network, shift in _EMBEDDING:
        if address in network:
            return ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)
    return address


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if any(address in network for network in _NEVER_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
