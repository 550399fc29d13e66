"""What are a cluster's challenge values? From a short memory, else from the controller: one question per cluster.

`dns.listeners` asks; `running` sends the questions on and hands the answers back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from plane.protocol.dns_messages import TxtRecordResponse
from plane.timing import TXT_CACHE_TTL_S, TXT_RESPONSE_TIMEOUT_S

__all__ = ["Known", "Questions"]

REMEMBERED_LIMIT = 10_000
IN_FLIGHT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Known:
    """A cluster's values, none, one or two, and until when they may be told (of the event loop's clock)."""

    values: tuple[str, ...]
    until: float


class Questions:
    """Questions and answers about clusters. ``send`` asks the controller, or raises OSError without a connection."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._remembered: dict[str, Known] = {}
        self._waiting: dict[str, asyncio.Future[Known | None]] = {}

    def known(self, cluster: str) -> Known | None:
        """What was answered within the last second; None if nothing was."""
        found = self._remembered.get(cluster)
        return found if found is not None and self._clock() < found.until else None

    async def ask(self, cluster: str) -> Known | None:
        """Ask, or wait for who has. None: nobody could be asked, or answered in time, or too much is asked at once."""
        answer = self._waiting.get(cluster)
        if answer is not None:
            return await asyncio.shield(answer)
        if len(self._waiting) >= IN_FLIGHT_LIMIT:
            return None
        answer = self._waiting[cluster] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(TXT_RESPONSE_TIMEOUT_S):
                await self._send(cluster)
                return await asyncio.shield(answer)
        except OSError:
            # A TimeoutError is one.
            return None
        finally:
            del self._waiting[cluster]
            if not answer.done():
                # Whoever joined this question fails with it.
                answer.set_result(None)

    def answered(self, response: TxtRecordResponse) -> None:
        """The controller has answered."""
        if len(self._remembered) >= REMEMBERED_LIMIT:
            self._remembered.clear()
        known = self._remembered[response.cluster] = Known(response.values, self._clock() + TXT_CACHE_TTL_S)
        answer = self._waiting.get(response.cluster)
        if answer is not None and not answer.done():
            answer.set_result(known)
