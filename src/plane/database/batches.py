"""Executes small statements together: items that arrive during a batch form the next; a lone item does not wait.

A result is returned only after the commit of its batch, so it means what it would mean alone.
`plane.controller.batched_statements` has one `Batcher` per kind of statement; the statements are in the files of their
aggregates.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import structlog

from plane.database.pool import DatabaseUnavailable, RowLocked
from plane.tasks import end_tasks, until_one_ends

__all__ = ["Batcher"]

In = TypeVar("In")
Out = TypeVar("Out")
# An item, the future of its result, and the deadline by the event loop's clock.
_Entry: TypeAlias = tuple[In, "asyncio.Future[Out]", float]

# Items queued in one batcher. Beyond this the database is too slow, and further items fail at once.
MAX_QUEUED = 20_000
# Items of one statement: enough that its fixed cost does not matter, few enough that it takes little time.
MAX_BATCH_SIZE = 500
# A request must fail within five seconds when the database is unavailable. One timer checks the deadlines of all items:
# a timer for each would cost as much as everything else here.
ITEM_TIMEOUT_S = 4.5
# Items of one batch that may wait for a lock one after the other, each for `LOCK_TIMEOUT_MS`. Beyond this number the
# whole table is likely to be locked.
MAX_LOCKED = 3
DEADLINE_CHECK_INTERVAL_S = 0.5

log = structlog.get_logger("plane.database")


class Batcher(Generic[In, Out]):
    """Queues items and executes them in batches. ``batches`` and ``items`` count what was executed.

    Args:
        write: executes a batch in one transaction and returns one result per item, in order.
        max_concurrency: batches that may be in flight at once. With 1, items are executed in the order of submission.
        spacing_s: minimum time between the starts of two batches. An item that follows none for so long is executed at
            once. Under load batches are larger. If several may be in flight, they follow each other while the database
            is fast, and overlap while it is slow.
        item_timeout_s: until a result must be there, for `submit_with_deadline`.
        max_queued: items that may wait for a batch.
    """

    def __init__(
        self,
        write: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        max_concurrency: int = 1,
        spacing_s: float = 0.0,
        item_timeout_s: float = ITEM_TIMEOUT_S,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._write = write
        self._max_concurrency = max_concurrency
        self._spacing_s = spacing_s
        self._item_timeout_s = item_timeout_s
        self._max_queued = max_queued
        self._started_at = -math.inf
        self._queued: list[_Entry[In, Out]] = []
        self._in_flight: list[list[_Entry[In, Out]]] = []
        self._deadline_timer: asyncio.TimerHandle | None = None
        # Of workers without a batch. An event would wake all of them for each lone item.
        self._waiters: list[asyncio.Future[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.batches = 0
        self.items = 0

    def submit(self, item: In) -> asyncio.Future[Out]:
        """Queue ``item`` and return the future of its result, which is set after the commit.

        The item is executed even if nothing awaits the future. The future raises:
            DatabaseUnavailable: the item may or may not have been executed.
            Unstorable, or whatever ``write`` raises for this item alone.
        """
        return self._submit(item, math.inf)

    def _submit(self, item: In, due_s: float) -> asyncio.Future[Out]:
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        if len(self._queued) >= self._max_queued:
            _fail(future, DatabaseUnavailable("the database is too slow: too many statements are queued"))
            return future
        self._queued.append((item, future, due_s))
        if len(self._queued) == 1:
            self._wake_worker()
        self._idle.clear()
        return future

    def submit_with_deadline(self, item: In) -> asyncio.Future[Out]:
        """Like `submit`, but the future fails with `DatabaseUnavailable` if the batch is not committed in time."""
        loop = asyncio.get_running_loop()
        if self._deadline_timer is None:
            self._deadline_timer = loop.call_later(DEADLINE_CHECK_INTERVAL_S, self._fail_late)
        return self._submit(item, loop.time() + self._item_timeout_s)

    async def execute(self, item: In) -> Out:
        """Execute ``item`` and return its result.

        Raises:
            DatabaseUnavailable, Unstorable: see `submit_with_deadline`.
        """
        return await self.submit_with_deadline(item)

    async def run(self) -> None:
        """Execute submitted items until cancelled."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._max_concurrency)]
        try:
            await until_one_ends(workers)
        finally:
            await end_tasks(workers)
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
                self._deadline_timer = None
            for _, future, _ in self._queued:
                future.cancel()

    async def wait_idle(self) -> None:
        """Return when nothing is queued and nothing is in flight."""
        await self._idle.wait()

    def _fail_late(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for entries in (self._queued, *self._in_flight):
            for _, future, due_s in entries:
                if due_s <= now:
                    _fail(future, DatabaseUnavailable("the database did not respond in time"))
        idle = not self._queued and not self._in_flight
        self._deadline_timer = None if idle else loop.call_later(DEADLINE_CHECK_INTERVAL_S, self._fail_late)

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            if not self._queued:
                await self._wait_for_items()
            if len(self._queued) < MAX_BATCH_SIZE and (wait_s := self._started_at + self._spacing_s - clock()) > 0:
                await asyncio.sleep(wait_s)
            batch = self._queued[:MAX_BATCH_SIZE]
            del self._queued[:MAX_BATCH_SIZE]
            if not batch:
                # Another worker has taken the items meanwhile.
                continue
            if self._queued:
                self._wake_worker()
            self._started_at = clock()
            self._in_flight.append(batch)
            try:
                # Items whose caller has given up, for example a request past its deadline, are not executed.
                await self._write_batch([entry for entry in batch if not entry[1].done()])
            finally:
                self._in_flight.remove(batch)
                for _, future, _ in batch:
                    if not future.done():
                        future.cancel()
                if not self._queued and not self._in_flight:
                    self._idle.set()

    async def _wait_for_items(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake_worker(self) -> None:
        """Wake one worker, unless all have batches: each looks for items after its batch."""
        while self._waiters:
            waiter = self._waiters.pop()
            # It is cancelled where the batcher is being ended.
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _write_batch(self, batch: list[_Entry[In, Out]]) -> None:
        if not batch:
            return
        self.batches += 1
        self.items += len(batch)
        try:
            results = await self._write([item for item, _, _ in batch])
        except RowLocked as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
            else:
                await self._write_unlocked(batch, str(error))
        except DatabaseUnavailable as error:
            for _, future, _ in batch:
                _fail(future, DatabaseUnavailable(str(error)))
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            # One item cannot be executed; the others must not fail with it.
            log.info("batch refused; executing its items one by one", size=len(batch), error=str(error))
            for entry in batch:
                await self._write_batch([entry])
        else:
            for (_, future, _), result in zip(batch, results, strict=True):
                _succeed(future, result)

    async def _write_unlocked(self, batch: list[_Entry[In, Out]], reason: str) -> None:
        """Execute those items of a batch that do not need the lock. The others fail after them.

        A failed item may end the connection of its node, which must have received the results of the others.
        """
        log.warning("rows are locked; executing a batch one by one", size=len(batch), error=reason)
        locked: list[_Entry[In, Out]] = []
        for place, entry in enumerate(batch):
            if len(locked) == MAX_LOCKED:
                locked += batch[place:]
                break
            item, future, _ = entry
            try:
                (result,) = await self._write([item])
            except RowLocked:
                locked.append(entry)
            except Exception as error:
                _fail(future, error)
            else:
                _succeed(future, result)
        for _, future, _ in locked:
            _fail(future, RowLocked(reason))


def _succeed(future: asyncio.Future[Out], result: Out) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Out], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Retrieve the exception: it is not an error of the batcher if nothing awaits the future any more.
        future.exception()
