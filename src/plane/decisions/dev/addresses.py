"""At which address does the proxy of `plane dev` listen, whose URLs name ``localhost``, and what else is it called?"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["IPV4", "IPV6", "loopback_hosts", "proxy_address"]

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


def loopback_hosts(port: int) -> tuple[str, str]:
    """Return what else than ``localhost:port`` a browser on this machine may say in `Host`."""
    return f"{IPV4}:{port}", f"[{IPV6}]:{port}"
