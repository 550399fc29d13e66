"""Many small writes in one statement: what comes in while the last batch is under way makes the next one.

Each answer is given only after its batch's commit, so it means what it would mean alone.
`plane.controller.batched_statements` has one `Batcher` per kind of write; the statements are in the files of their
aggregates.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import structlog

from plane.database.pool import DatabaseUnavailable
from plane.tasks import end_tasks, until_one_ends

__all__ = ["Batcher"]

In = TypeVar("In")
Out = TypeVar("Out")
# What is written, who waits for it, and until when by the event loop's clock.
_Entry: TypeAlias = tuple[In, "asyncio.Future[Out]", float]

# What waits for one batcher; beyond that the database is too slow to go on, and callers are told at once.
WAITING_LIMIT = 20_000
# Of one statement. Large enough that a statement's fixed cost is nothing, small enough that it is over soon.
BATCH_LIMIT = 500
# A request must fail within five seconds when the database is away. Who waits too long is looked for that often, with
# one timer for all: one for each would cost as much as all else here.
WAIT_LIMIT_S = 4.5
LOOK_INTERVAL_S = 0.5

log = structlog.get_logger("plane.database")


class Batcher(Generic[In, Out]):
    """Collects items and writes them together. ``batches`` and ``items`` count what was written.

    Args:
        write: writes a batch in one transaction and returns one result per item, in order.
        collect_s: how long the first item of a batch waits for others. 0: only while a batch is under way.
        at_once: batches that may be under way at the same time. With 1, items are written in the order they came.
        apart_s: while a batch is under way, the next one starts no sooner after it than this. Where commits are quick
            batches follow each other and are large; where they are slow, several wait for the disk together.
    """

    def __init__(
        self,
        write: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        collect_s: float = 0.0,
        at_once: int = 1,
        apart_s: float = 0.0,
    ) -> None:
        self._write = write
        self._collect_s = collect_s
        self._at_once = at_once
        self._apart_s = apart_s
        self._started_at = 0.0
        self._waiting: list[_Entry[In, Out]] = []
        self._under_way: list[list[_Entry[In, Out]]] = []
        self._look: asyncio.TimerHandle | None = None
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.batches = 0
        self.items = 0

    def put(self, item: In) -> asyncio.Future[Out]:
        """Have ``item`` written; the result comes once it is committed, also if nobody waits for it.

        The future raises:
            DatabaseUnavailable: it may or may not have been written.
            Unstorable, or what ``write`` raises for this item alone.
        """
        return self._put(item, math.inf)

    def _put(self, item: In, due_s: float) -> asyncio.Future[Out]:
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= WAITING_LIMIT:
            _fail(future, DatabaseUnavailable("the database is too slow: too many writes wait for it"))
            return future
        self._waiting.append((item, future, due_s))
        self._some.set()
        self._idle.clear()
        return future

    def put_soon(self, item: In) -> asyncio.Future[Out]:
        """As `put`, for somebody who waits, and who is told so if it takes too long.

        The future raises:
            DatabaseUnavailable, Unstorable: as of `put`.
        """
        loop = asyncio.get_running_loop()
        if self._look is None:
            self._look = loop.call_later(LOOK_INTERVAL_S, self._fail_late)
        return self._put(item, loop.time() + WAIT_LIMIT_S)

    async def add(self, item: In) -> Out:
        """Have ``item`` written, and wait for the result.

        Raises:
            DatabaseUnavailable, Unstorable: as of `put`.
        """
        return await self.put_soon(item)

    async def run(self) -> None:
        """Write what is put, until cancelled."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._at_once)]
        try:
            await until_one_ends(workers)
        finally:
            await end_tasks(workers)
            if self._look is not None:
                self._look.cancel()
                self._look = None
            for _, future, _ in self._waiting:
                future.cancel()

    async def until_idle(self) -> None:
        """Return when nothing waits and nothing is under way."""
        await self._idle.wait()

    def _fail_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for entries in (self._waiting, *self._under_way):
            for _, future, due_s in entries:
                if due_s <= now:
                    _fail(future, DatabaseUnavailable("the database does not answer in time"))
        idle = not self._waiting and not self._under_way
        self._look = None if idle else loop.call_later(LOOK_INTERVAL_S, self._fail_late)

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._some.wait()
            if self._collect_s and len(self._waiting) < BATCH_LIMIT:
                await asyncio.sleep(self._collect_s)
            if self._under_way and (wait_s := self._started_at + self._apart_s - clock()) > 0:
                await asyncio.sleep(wait_s)
            batch = self._waiting[:BATCH_LIMIT]
            del self._waiting[:BATCH_LIMIT]
            if not self._waiting:
                self._some.clear()
            if not batch:
                continue
            self._started_at = clock()
            self._under_way.append(batch)
            try:
                # Who has given up, as a request past its limit, is not written for.
                await self._write_batch([entry for entry in batch if not entry[1].done()])
            finally:
                self._under_way.remove(batch)
                for _, future, _ in batch:
                    if not future.done():
                        future.cancel()
                if not self._waiting and not self._under_way:
                    self._idle.set()

    async def _write_batch(self, batch: list[_Entry[In, Out]]) -> None:
        if not batch:
            return
        self.batches += 1
        self.items += len(batch)
        try:
            results = await self._write([item for item, _, _ in batch])
        except DatabaseUnavailable as error:
            for _, future, _ in batch:
                _fail(future, DatabaseUnavailable(str(error)))
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            # One of them cannot be written: the others must not suffer for it.
            log.info("batch refused; its items are written one by one", size=len(batch), error=str(error))
            for entry in batch:
                await self._write_batch([entry])
        else:
            for (_, future, _), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(future: asyncio.Future[Out], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Nobody may be waiting any more; that is no error of the batcher.
        future.exception()
