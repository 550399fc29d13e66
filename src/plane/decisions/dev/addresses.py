"""The address and the host names of `plane dev`'s proxy, whose URLs have the host ``localhost``."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["IPV4", "IPV6", "loopback_hosts", "proxy_address"]

IPV4 = "127.0.0.1"
IPV6 = "::1"


def proxy_address(localhost: Collection[str], *, has_ipv6: bool) -> str:
    """Return the address on which the proxy listens.

    Args:
        localhost: addresses of the name ``localhost`` on this machine; empty if it has none.
        has_ipv6: the machine's loopback interface has the address ``::1``.
    """
    # Browsers and curl resolve the name themselves and try both addresses; other clients use the machine's resolver.
    return IPV6 if has_ipv6 and IPV6 in localhost and IPV4 not in localhost else IPV4


def loopback_hosts(port: int) -> tuple[str, str]:
    """Return the values of `Host` beside ``localhost:port`` that browsers on this machine may send."""
    return f"{IPV4}:{port}", f"[{IPV6}]:{port}"
