"""Does a backend answer HTTP yet? Asks until it does; used by every runtime.

Probes start close together and back off, so a fast backend is seen at once and a slow one is left in peace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.protocol.addresses import format_socket_address
from plane.runtime.base import StartupTimedOut
from plane.timing import READINESS_FIRST_DELAY_S, READINESS_MAX_DELAY_S, READINESS_TRY_LIMIT_S

__all__ = ["until_it_answers"]

# A backend that needs 400 ms is seen within 10 ms, one that needs a second within 22 ms.
BACKOFF = 1.02


async def until_it_answers(
    host: str, port: int, limit_s: float, foreign_listener: Callable[[], Awaitable[str | None]] | None = None
) -> None:
    """Return once ``HEAD /`` is answered with anything that begins with ``HTTP/``, by a process of the backend's own.

    Args:
        foreign_listener: says which other process listens on the port, if one does; None: this cannot be known.

    Raises:
        StartupTimedOut: not within ``limit_s``.
    """
    delay_s = READINESS_FIRST_DELAY_S
    foreign = None
    try:
        async with asyncio.timeout(limit_s):
            while True:
                if await _answers(host, port):
                    foreign = None if foreign_listener is None else await foreign_listener()
                    if foreign is None:
                        return
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * BACKOFF, READINESS_MAX_DELAY_S)
    except TimeoutError:
        if foreign is not None:
            raise StartupTimedOut(
                f"did not become ready within {limit_s:g} s: {foreign} listens on port {port}, and is none of its "
                "processes"
            ) from None
        raise StartupTimedOut(
            f"did not answer HTTP within {limit_s:g} s; it must listen on the port in $PORT, on all addresses"
        ) from None


async def _answers(host: str, port: int) -> bool:
    request = f"HEAD / HTTP/1.1\r\nHost: {format_socket_address(host, port)}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(READINESS_TRY_LIMIT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                return await reader.readexactly(5) == b"HTTP/"
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
