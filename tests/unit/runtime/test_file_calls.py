"""Calls of file systems that hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from plane.runtime.file_calls import HANGING_PER_PLACE, THREADS_LIMIT, FileCalls, FileSystemHangs


class Hanging:
    """A file system that does not respond until ``event`` is set."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.discarded: list[str] = []

    def read(self) -> str:
        assert self.event.wait(10)
        return "content"

    async def until_discarded(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.discarded) < count:
                await asyncio.sleep(0.01)


async def test_only_the_caller_waits() -> None:
    hanging = Hanging()
    reading = asyncio.create_task(FileCalls().run("place", hanging.read))
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert not reading.done()
    hanging.event.set()
    assert await reading == "content"


async def test_calls_for_a_place_that_hangs_fail_at_once_and_others_do_not() -> None:
    hanging, calls = Hanging(), FileCalls(timeout_s=0.01)
    for _ in range(HANGING_PER_PLACE):
        with pytest.raises(FileSystemHangs, match="has not responded within"):
            await calls.run("place", hanging.read, hanging.discarded.append)
    with pytest.raises(FileSystemHangs, match=r"does not respond$"):
        await calls.run("place", hanging.read)
    assert await calls.run("another place", lambda: 1) == 1
    hanging.event.set()
    await hanging.until_discarded(HANGING_PER_PLACE)
    assert await calls.run("place", hanging.read) == "content"


async def test_the_threads_that_hang_are_limited() -> None:
    hanging, calls = Hanging(), FileCalls(timeout_s=0.001)
    for number in range(THREADS_LIMIT):
        with pytest.raises(FileSystemHangs, match="has not responded within"):
            await calls.run(str(number), hanging.read)
    with pytest.raises(FileSystemHangs, match=r"does not respond$"):
        await calls.run("another place", hanging.read)
    hanging.event.set()


async def test_a_burst_of_calls_shares_the_threads() -> None:
    hanging, calls = Hanging(), FileCalls()
    before = threading.active_count()
    burst = [asyncio.create_task(calls.run(str(number), hanging.read)) for number in range(2 * THREADS_LIMIT)]
    await asyncio.sleep(0.1)
    assert threading.active_count() - before <= THREADS_LIMIT
    hanging.event.set()
    assert set(await asyncio.gather(*burst)) == {"content"}


async def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls = FileCalls(timeout_s=0.5)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        for _ in range(THREADS_LIMIT):
            with pytest.raises(RuntimeError):
                await calls.run("place", lambda: 1)
    assert await calls.run("place", lambda: 1) == 1


async def test_the_result_of_a_cancelled_call_is_discarded() -> None:
    hanging = Hanging()
    reading = asyncio.create_task(FileCalls().run("place", hanging.read, hanging.discarded.append))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    hanging.event.set()
    await hanging.until_discarded(1)


@pytest.mark.parametrize("error", [ValueError("wrong"), TimeoutError("of the network")])
async def test_the_error_of_a_call_is_raised(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        await FileCalls().run("place", fail)
