"""A start in flight continues when its caller is cancelled, and can be awaited."""

from __future__ import annotations

import asyncio

import pytest

from plane.runtime.base import BackendFailed
from plane.runtime.in_flight_starts import InFlightStarts


async def test_a_start_continues_when_its_caller_is_cancelled() -> None:
    starts, may_continue, done = InFlightStarts(), asyncio.Event(), asyncio.Event()

    async def start() -> int:
        await may_continue.wait()
        done.set()
        return 7

    calling = asyncio.create_task(starts.run("b", start()))
    await asyncio.sleep(0)
    assert "b" in starts
    assert list(starts) == ["b"]
    calling.cancel()
    ending = asyncio.create_task(starts.wait("b"))
    await asyncio.wait([calling])
    assert not ending.done()
    may_continue.set()
    await ending
    assert done.is_set()
    await starts.wait_all()
    assert "b" not in starts


async def test_a_failed_start_raises_its_error_and_is_no_longer_in_flight() -> None:
    starts = InFlightStarts()

    async def start() -> int:
        raise BackendFailed("no such command")

    with pytest.raises(BackendFailed, match="no such command"):
        await starts.run("b", start())
    await starts.wait("b")
    assert list(starts) == []
    assert await starts.run("b", asyncio.sleep(0, 1)) == 1
