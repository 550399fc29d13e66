"""Starts go on without whoever asked for them, and are waited for by who ends things."""

from __future__ import annotations

import asyncio

import pytest

from plane.runtime.base import BackendFailed
from plane.runtime.in_flight_starts import Starts


async def test_a_start_goes_on_if_its_asker_goes() -> None:
    starts, go_on, done = Starts(), asyncio.Event(), asyncio.Event()

    async def start() -> int:
        await go_on.wait()
        done.set()
        return 7

    asking = asyncio.create_task(starts.run("b", start()))
    await asyncio.sleep(0)
    assert "b" in starts
    assert list(starts) == ["b"]
    asking.cancel()
    ending = asyncio.create_task(starts.over("b"))
    await asyncio.wait([asking])
    assert not ending.done()
    go_on.set()
    await ending
    assert done.is_set()
    await starts.all_over()
    assert "b" not in starts


async def test_what_a_start_raises_is_told_and_over() -> None:
    starts = Starts()

    async def start() -> int:
        raise BackendFailed("no such command")

    with pytest.raises(BackendFailed, match="no such command"):
        await starts.run("b", start())
    await starts.over("b")
    assert list(starts) == []
    assert await starts.run("b", asyncio.sleep(0, 1)) == 1
