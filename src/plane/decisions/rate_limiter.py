"""Has a source asked for too much that leads nowhere? A bucket of tokens for each network, in bounded memory.

`plane.dns.listeners` asks before it answers or forwards what is not known to lead somewhere, so that the server is of
no use for reflecting packets at others, nor for flooding the controller.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["SourceRate", "network_of"]

# A resolver asks some names per order; its retries and its siblings in one network are many times fewer than this.
RATE_PER_S = 20.0
BURST = 60.0
NETWORKS_LIMIT = 10_000


def network_of(address: str) -> str:
    """The network that one asker can be assumed to have: /24 of IPv4, /56 of IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 56), strict=False))


class SourceRate:
    """Buckets of all networks. Times in seconds, monotonic."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, network: str, now: float) -> bool:
        """Take a token of ``network``; False if it has none left."""
        left, since = self._buckets.pop(network, (BURST, now))
        left = min(BURST, left + (now - since) * RATE_PER_S)
        allowed = left >= 1
        self._buckets[network] = (left - 1 if allowed else left, now)
        if len(self._buckets) > NETWORKS_LIMIT:
            self._buckets.popitem(last=False)
        return allowed
