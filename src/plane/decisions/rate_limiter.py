"""Limits the requests of each network with a token bucket, in bounded memory.

`plane.dns.listeners` checks it before it responds to, or forwards, queries that have no known value. So the server
cannot be used to reflect packets at others, or to flood the controller. `plane.controller.console.sign_in` checks it
before it looks at an API key.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["BURST", "RATE_PER_S", "RateLimiter", "network_of"]

# A resolver queries a few names per order. Its retries, and other resolvers of its network, stay far below this.
RATE_PER_S = 20.0
BURST = 60.0
NETWORKS_LIMIT = 10_000


def network_of(address: str) -> str:
    """Return the network that one client can be assumed to have: /24 of IPv4, /56 of IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 56), strict=False))


class RateLimiter:
    """The buckets of all networks, each filled at ``rate_per_s`` up to ``burst``. Times are monotonic, in seconds."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, network: str, now: float) -> bool:
        """Take a token from the bucket of ``network``. False: it is empty."""
        left, since = self._buckets.pop(network, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate_per_s)
        allowed = left >= 1
        self._buckets[network] = (left - 1 if allowed else left, now)
        if len(self._buckets) > NETWORKS_LIMIT:
            self._buckets.popitem(last=False)
        return allowed
