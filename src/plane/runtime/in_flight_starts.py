"""Track backend starts that are in flight.

A start continues when its caller is cancelled, so that a later terminate knows what to stop. Used by the runtimes that
start backends themselves, `docker.runtime` and `process.runtime`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog

__all__ = ["InFlightStarts"]

log = structlog.get_logger("plane.runtime")


class InFlightStarts:
    """The starts of one runtime, at most one per backend. Iterating yields the ids of the backends."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[int]] = {}

    def __contains__(self, backend_id: str) -> bool:
        return backend_id in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    async def run(self, backend_id: str, start: Coroutine[Any, Any, int]) -> int:
        """Run ``start`` to completion, even if the caller is cancelled. Return or raise its outcome."""
        task = self._tasks[backend_id] = asyncio.create_task(start)
        task.add_done_callback(lambda _: self._remove(backend_id, task))
        return await asyncio.shield(task)

    async def wait(self, backend_id: str) -> None:
        """Return when no start of the backend is in flight, whatever its outcome."""
        if task := self._tasks.get(backend_id):
            await asyncio.wait([task])

    async def wait_all(self) -> None:
        """Return when no start is in flight."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _remove(self, backend_id: str, task: asyncio.Task[int]) -> None:
        del self._tasks[backend_id]
        if not task.cancelled() and (error := task.exception()):
            log.info("backend not started", backend=backend_id, error=str(error))
