"""Items that are executed in batches: each gets its own result, independent of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from plane.database import batches
from plane.database.batches import Batcher
from plane.database.pool import DatabaseUnavailable, RowLocked, Unstorable

Write = Callable[[Sequence[int]], Awaitable[Sequence[int]]]


@asynccontextmanager
async def running(write: Write, **options: Any) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(write, **options)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_items_that_arrive_during_a_batch_form_the_next_one() -> None:
    written: list[list[int]] = []
    go = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        written.append(list(items))
        await go.wait()
        return [item * 10 for item in items]

    async with running(write) as batcher:
        first = asyncio.create_task(batcher.execute(1))
        while not written:
            await asyncio.sleep(0)
        others = [asyncio.create_task(batcher.execute(item)) for item in (2, 3, 4)]
        await asyncio.sleep(0)
        go.set()
        assert [await first, *[await other for other in others]] == [10, 20, 30, 40]
    assert written == [[1], [2, 3, 4]]


async def test_lone_item_does_not_wait_for_company() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        return list(items)

    async with running(write, spacing_s=3_600.0) as batcher, asyncio.timeout(60):
        assert await batcher.execute(1) == 1


async def test_items_that_follow_another_batch_too_soon_form_one_batch() -> None:
    written: list[list[int]] = []

    async def write(items: Sequence[int]) -> list[int]:
        written.append(list(items))
        return list(items)

    async with running(write, spacing_s=0.2) as batcher:
        await batcher.execute(1)
        later = []
        for item in range(2, 8):
            later.append(batcher.submit(item))
            await asyncio.sleep(0.005)
        await asyncio.gather(*later)
    assert written == [[1], [2, 3, 4, 5, 6, 7]]


async def test_item_that_cannot_be_stored_fails_alone() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise Unstorable("two")
        return list(items)

    async with running(write) as batcher:
        results = await asyncio.gather(*(batcher.execute(item) for item in (1, 2, 3)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], Unstorable)
    assert results[2] == 3


async def test_batch_fails_while_the_database_is_unavailable_and_the_next_succeeds() -> None:
    away = [True]

    async def write(items: Sequence[int]) -> list[int]:
        if away.pop() if away else False:
            raise DatabaseUnavailable("away")
        return list(items)

    async with running(write) as batcher:
        results = await asyncio.gather(*(batcher.execute(item) for item in (1, 2)), return_exceptions=True)
        assert all(isinstance(result, DatabaseUnavailable) for result in results)
        assert results[0] is not results[1]
        assert await batcher.execute(3) == 3


async def test_item_past_its_deadline_fails_and_is_not_executed() -> None:
    written: list[int] = []
    go = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        written.extend(items)
        await go.wait()
        return list(items)

    async with running(write, item_timeout_s=0.05) as batcher:
        first = batcher.submit(1)
        while not written:
            await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await batcher.execute(2)
        go.set()
        assert await first == 1
        await batcher.wait_idle()
    assert written == [1]


async def test_items_beyond_the_queue_limit_fail_at_once() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        return list(items)

    batcher: Batcher[int, int] = Batcher(write, max_queued=2)
    futures = [batcher.submit(item) for item in (1, 2, 3)]
    assert isinstance(futures[2].exception(), DatabaseUnavailable)
    assert not futures[1].done()


async def test_items_of_two_batches_are_executed_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_SIZE", 2)
    in_flight: list[list[int]] = []
    both = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        in_flight.append(list(items))
        if len(in_flight) == 2:
            both.set()
        await both.wait()
        return list(items)

    async with running(write, max_concurrency=2) as batcher, asyncio.timeout(10):
        for _ in range(5):
            await asyncio.sleep(0)
        assert await asyncio.gather(*(batcher.submit(item) for item in (1, 2, 3, 4))) == [1, 2, 3, 4]
    assert in_flight == [[1, 2], [3, 4]]


async def test_item_that_is_submitted_after_the_end_is_queued() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        return list(items)

    async with running(write, max_concurrency=2) as batcher:
        assert await batcher.execute(1) == 1
    assert not batcher.submit(2).done()


async def test_item_that_is_submitted_while_the_batcher_is_being_ended_is_cancelled() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        return list(items)

    async with running(write, max_concurrency=2) as batcher:
        assert await batcher.execute(1) == 1
        await asyncio.sleep(0)
        for waiter in list(batcher._waiters):
            waiter.cancel()
        late = batcher.submit(2)
    assert late.cancelled()


async def test_concurrent_batches_are_cancelled_with_the_batcher() -> None:
    in_flight: list[int] = []

    async def write(items: Sequence[int]) -> list[int]:
        in_flight.extend(items)
        await asyncio.Event().wait()
        return list(items)

    async with running(write, max_concurrency=2) as batcher:
        futures = []
        for item in (1, 2, 3):
            futures.append(batcher.submit(item))
            for _ in range(5):
                await asyncio.sleep(0)
        assert in_flight == [1, 2]
    assert all(future.cancelled() for future in futures)


async def test_a_locked_row_fails_only_its_own_item_and_after_the_others() -> None:
    """A session with an open transaction, for example of a person, holds a lock for as long as it likes."""
    done: list[int] = []

    async def write(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise RowLocked("canceling statement due to lock timeout")
        return [item * 10 for item in items]

    async with running(write, spacing_s=0.01) as batcher, asyncio.timeout(10):
        await batcher.submit(0)
        futures = [batcher.submit(item) for item in (1, 2, 3)]
        for future in futures:
            future.add_done_callback(lambda future: done.append(futures.index(future) + 1))
        assert await asyncio.gather(*futures[1:]) == [20, 30]
        with pytest.raises(RowLocked):
            await futures[0]
    assert done == [2, 3, 1]


async def test_items_do_not_wait_one_by_one_for_a_locked_table() -> None:
    calls = 0

    async def write(items: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise RowLocked("canceling statement due to lock timeout")

    async with running(write) as batcher, asyncio.timeout(10):
        results = await asyncio.gather(*(batcher.submit(item) for item in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {RowLocked}
    assert calls == 1 + batches.MAX_LOCKED
