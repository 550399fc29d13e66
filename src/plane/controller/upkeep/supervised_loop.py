"""Runs background loops of a controller so that they survive every exception: it is logged, and the loop restarts.

`plane.controller.server` runs each of its loops with `run_supervised`. A controller that ended because of an unexpected
error in one loop would take its API and its nodes' connections with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from plane.database.pool import DatabaseUnavailable
from plane.decisions.retry import ReconnectBackoff

__all__ = ["run_supervised"]

# Leases and lost drones must be handled soon after the database is available again.
MAX_RESTART_DELAY_S = 10.0

log = structlog.get_logger("plane.controller")


async def run_supervised(
    name: str, loop: Callable[[], Awaitable[None]], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Run ``loop``, which runs until cancelled, and restart it after an error, with a growing delay."""
    backoff = ReconnectBackoff(cap_s=MAX_RESTART_DELAY_S)
    clock = asyncio.get_running_loop().time
    while True:
        backoff.connected(clock())
        try:
            await loop()
        except DatabaseUnavailable as error:
            delay_s = backoff.ended(clock())
            log.warning(
                "background loop waits for the database", loop=name, retry_in_s=round(delay_s, 1), error=str(error)
            )
        except Exception as error:
            delay_s = backoff.ended(clock())
            log.exception("background loop failed; restarting", loop=name, retry_in_s=round(delay_s, 1), exc_info=error)
        else:
            return
        await sleep(delay_s)
