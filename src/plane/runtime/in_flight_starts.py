"""Starts of backends under way: each goes on if whoever asked for it goes, so that its end knows what to end.

Used by the runtimes that start things themselves, `docker.runtime` and `process.runtime`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog

__all__ = ["Starts"]

log = structlog.get_logger("plane.runtime")


class Starts:
    """The starts of one runtime, at most one of each backend. Iterates over the backends' ids."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[int]] = {}

    def __contains__(self, backend_id: str) -> bool:
        return backend_id in self._under_way

    def __iter__(self) -> Iterator[str]:
        return iter(self._under_way)

    async def run(self, backend_id: str, start: Coroutine[Any, Any, int]) -> int:
        """Run ``start`` to its end, also if this is cancelled; returns and raises what it does."""
        task = self._under_way[backend_id] = asyncio.create_task(start)
        task.add_done_callback(lambda _: self._is_over(backend_id, task))
        return await asyncio.shield(task)

    async def over(self, backend_id: str) -> None:
        """Return when no start of the backend is under way, however it went."""
        if task := self._under_way.get(backend_id):
            await asyncio.wait([task])

    async def all_over(self) -> None:
        """Return when none is under way any more."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()))

    def _is_over(self, backend_id: str, task: asyncio.Task[int]) -> None:
        del self._under_way[backend_id]
        if not task.cancelled() and (error := task.exception()):
            log.info("backend not started", backend=backend_id, error=str(error))
