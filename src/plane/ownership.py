"""Who ends a task: the few ways in which tasks are run together and ended here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

__all__ = ["end_tasks", "run_together", "until_one_ends"]


async def run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run ``parts`` until one of them ends, then end the others; raises what the one raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await until_one_ends(tasks)
    finally:
        await end_tasks(tasks)


async def until_one_ends(tasks: Collection[asyncio.Task[None]]) -> None:
    """Return when one of ``tasks`` has ended; raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel ``tasks``, and return when all have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
