"""Runs a component until SIGTERM or SIGINT, or until one of its parts fails."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import uvloop

from plane.cli.logs import set_up_logs
from plane.cli.plain_structlog import structlog

__all__ = ["Running", "serve", "until_stopped"]

# Python's own, for its youngest generation.
GC_THRESHOLD = 700

log = structlog.get_logger("plane.cli")


class Running(Protocol):
    """A started component."""

    async def wait(self) -> None:
        """Return when the component has ended. Raise what ended one of its parts."""


def serve(component: AbstractAsyncContextManager[Running]) -> None:
    """Run ``component`` in this process until a signal requests its stop.

    Raises:
        ConfigurationError: it cannot start.
    """
    set_up_logs()
    uvloop.run(_serve(component))


async def _serve(component: AbstractAsyncContextManager[Running]) -> None:
    async with component as running:
        await until_stopped(running)


async def until_stopped(*running: Running) -> None:
    """Return on SIGTERM or SIGINT.

    Raises:
        Exception: what ended a part of a component.
    """
    # Objects that exist by now live until the end. Without them a full collection does not take its 50 ms. One in 30 is
    # garbage, which is not worth a collection: nodes connect after this line.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    waits = [asyncio.create_task(component.wait()) for component in running]
    try:
        done, _ = await asyncio.wait([stopped, *waits], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        log.info("stopping")
    finally:
        for task in (stopped, *waits):
            task.cancel()
        await asyncio.wait([stopped, *waits])
