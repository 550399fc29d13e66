"""Background loops of a controller that survive any exception: it is logged, and the loop starts again.

`plane.controller.server` runs each of its loops with it. A controller that ends because one of its loops met an
error that nobody foresaw takes its API and its nodes' connections with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from plane.decisions.reconnect_backoff import ReconnectBackoff

__all__ = ["run_supervised"]

log = structlog.get_logger("plane.controller")


async def run_supervised(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run ``loop``, which runs until cancelled, and run it again after an error; the wait grows with each."""
    backoff = ReconnectBackoff()
    clock = asyncio.get_running_loop().time
    while True:
        backoff.connected(clock())
        try:
            await loop()
        except Exception as error:
            wait_s = backoff.ended(clock())
            log.exception("background loop failed; restarting", loop=name, again_in_s=round(wait_s, 1), exc_info=error)
            await asyncio.sleep(wait_s)
        else:
            return
