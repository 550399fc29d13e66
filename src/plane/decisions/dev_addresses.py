"""At which address does the proxy of `plane dev` listen, whose URLs name ``localhost``? Pure."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["IPV4", "IPV6", "proxy_address"]

IPV4 = "127.0.0.1"
IPV6 = "::1"


def proxy_address(localhost: Collection[str], *, has_ipv6: bool) -> str:
    """Return the address.

    Args:
        localhost: what the name ``localhost`` resolves to on this machine; empty if it does not.
        has_ipv6: the machine's loopback has the address ``::1``.
    """
    # Browsers and curl know the name by themselves and try both; other clients do as the machine says.
    return IPV6 if has_ipv6 and IPV6 in localhost and IPV4 not in localhost else IPV4
