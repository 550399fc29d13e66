"""The challenge values of clusters, cached for a second. Each cluster is requested from the controller once at a time.

`dns.listeners` fetches values; `dns.server` sends the requests and passes the responses back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from plane.protocol.dns_messages import TxtRecordResponse
from plane.timing import TXT_CACHE_TTL_S, TXT_RESPONSE_TIMEOUT_S

__all__ = ["CachedValues", "ChallengeValues"]

CACHE_LIMIT = 10_000
IN_FLIGHT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class CachedValues:
    """A cluster's values: none, one or two. They expire at ``expires_at`` of the event loop's clock."""

    values: tuple[str, ...]
    expires_at: float


class ChallengeValues:
    """The values of all clusters.

    Args:
        send: requests a cluster's values from the controller; raises OSError without a connection.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._cache: dict[str, CachedValues] = {}
        self._in_flight: dict[str, asyncio.Future[CachedValues | None]] = {}

    def cached(self, cluster: str) -> CachedValues | None:
        """Return the values of a response of the last second, or None."""
        found = self._cache.get(cluster)
        return found if found is not None and self._clock() < found.expires_at else None

    def had_values(self, cluster: str) -> bool:
        """Return whether the last response about the cluster, however old, had values."""
        found = self._cache.get(cluster)
        return found is not None and bool(found.values)

    async def fetch(self, cluster: str) -> CachedValues | None:
        """Request the values, or wait for a request in flight.

        Returns None without a connection, without a response in time, or with too many requests in flight.
        """
        response = self._in_flight.get(cluster)
        if response is not None:
            return await asyncio.shield(response)
        if len(self._in_flight) >= IN_FLIGHT_LIMIT:
            return None
        response = self._in_flight[cluster] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(TXT_RESPONSE_TIMEOUT_S):
                await self._send(cluster)
                return await asyncio.shield(response)
        except OSError:
            # A TimeoutError is an OSError.
            return None
        finally:
            del self._in_flight[cluster]
            if not response.done():
                # The other callers that wait for this request fail with it.
                response.set_result(None)

    def receive(self, response: TxtRecordResponse) -> None:
        """Handle a response of the controller."""
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        values = CachedValues(response.values, self._clock() + TXT_CACHE_TTL_S)
        self._cache[response.cluster] = values
        waiting = self._in_flight.get(response.cluster)
        if waiting is not None and not waiting.done():
            waiting.set_result(values)
