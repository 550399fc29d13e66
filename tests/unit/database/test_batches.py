"""Writes that are put together: each gets its own answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from plane.database import batches
from plane.database.batches import Batcher
from plane.database.pool import DatabaseUnavailable, Unstorable

Write = Callable[[Sequence[int]], Awaitable[Sequence[int]]]


@asynccontextmanager
async def running(write: Write, *, collect_s: float = 0.0, at_once: int = 1) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(write, collect_s=collect_s, at_once=at_once)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_comes_while_a_batch_is_under_way_makes_the_next_one() -> None:
    written: list[list[int]] = []
    go = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        written.append(list(items))
        await go.wait()
        return [item * 10 for item in items]

    async with running(write) as batcher:
        first = asyncio.create_task(batcher.add(1))
        while not written:
            await asyncio.sleep(0)
        others = [asyncio.create_task(batcher.add(item)) for item in (2, 3, 4)]
        await asyncio.sleep(0)
        go.set()
        assert [await first, *[await other for other in others]] == [10, 20, 30, 40]
    assert written == [[1], [2, 3, 4]]


async def test_an_item_that_cannot_be_written_fails_alone() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise Unstorable("two")
        return list(items)

    async with running(write) as batcher:
        results = await asyncio.gather(*(batcher.add(item) for item in (1, 2, 3)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], Unstorable)
    assert results[2] == 3


async def test_when_the_database_is_away_all_are_told_and_the_next_go_on() -> None:
    away = [True]

    async def write(items: Sequence[int]) -> list[int]:
        if away.pop() if away else False:
            raise DatabaseUnavailable("away")
        return list(items)

    async with running(write) as batcher:
        results = await asyncio.gather(*(batcher.add(item) for item in (1, 2)), return_exceptions=True)
        assert all(isinstance(result, DatabaseUnavailable) for result in results)
        assert results[0] is not results[1]
        assert await batcher.add(3) == 3


async def test_who_waits_too_long_is_told_and_is_not_written_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WAIT_LIMIT_S", 0.05)
    monkeypatch.setattr(batches, "LOOK_INTERVAL_S", 0.02)
    written: list[int] = []
    go = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int]:
        written.extend(items)
        await go.wait()
        return list(items)

    async with running(write) as batcher:
        first = batcher.put(1)
        while not written:
            await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await batcher.add(2)
        go.set()
        assert await first == 1
        await batcher.until_idle()
    assert written == [1]


async def test_too_many_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WAITING_LIMIT", 2)

    async def write(items: Sequence[int]) -> list[int]:
        return list(items)

    batcher: Batcher[int, int] = Batcher(write)
    futures = [batcher.put(item) for item in (1, 2, 3)]
    assert isinstance(futures[2].exception(), DatabaseUnavailable)
    assert not futures[1].done()


async def test_several_batches_may_be_under_way_and_the_end_ends_all() -> None:
    under_way: list[int] = []

    async def write(items: Sequence[int]) -> list[int]:
        under_way.extend(items)
        await asyncio.Event().wait()
        return list(items)

    async with running(write, at_once=2) as batcher:
        futures = []
        for item in (1, 2, 3):
            futures.append(batcher.put(item))
            for _ in range(5):
                await asyncio.sleep(0)
        assert under_way == [1, 2]
    assert all(future.cancelled() for future in futures)
