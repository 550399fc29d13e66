"""Run tasks together and end them: every task has an owner, and the owner ends it with one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

__all__ = ["OwnedTasks", "end_tasks", "run_together", "until_one_ends"]


async def run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run ``parts`` until one of them ends, then end the others. Raises what that one raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await until_one_ends(tasks)
    finally:
        await end_tasks(tasks)


async def until_one_ends(tasks: Collection[asyncio.Task[None]]) -> None:
    """Return when one of ``tasks`` has ended. Raises what that one raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def end_tasks(tasks: Collection[asyncio.Future[None]]) -> None:
    """Cancel ``tasks``, and return when all have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


class OwnedTasks:
    """Tasks of one owner, which ends them.

    Args:
        failed: is called with the exception of a task that raised; the other tasks continue.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` until it returns, or until `end`."""
        task = asyncio.create_task(work)
        self.add(task)
        return task

    def add(self, work: asyncio.Future[None]) -> None:
        """Own a future that is no task. Its maker ends the work when the future is cancelled."""
        self._running.add(work)
        work.add_done_callback(self._done)

    async def wait(self, timeout_s: float) -> None:
        """Return when all running tasks have ended, or after the timeout."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def end(self) -> None:
        """Cancel all running tasks, and return when they have ended."""
        await end_tasks(list(self._running))

    def _done(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)
