"""Calls of file systems that may hang, such as those of a network or of FUSE, on threads of their own.

Only the caller waits, for a limited time: a drone that does not renew its leases loses all of its backends. A thread
waits until the file system responds, so their number is limited, in all and for each place.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from plane.protocol.errors import PlaneError

__all__ = ["HANGING_PER_PLACE", "THREADS_LIMIT", "FileCalls", "FileSystemHangs"]

# A file system that takes longer hangs. Far less than a lease, so that a start ends with its own message.
TIMEOUT_S = 10.0
# Threads in all. A call waits for its thread for as long as for its result.
THREADS_LIMIT = 100
# Threads for one place that may wait although nothing waits for them any more.
HANGING_PER_PLACE = 5

T = TypeVar("T")


class FileSystemHangs(PlaneError):
    """The file system has not responded in time, or earlier calls for the same place still wait."""


class FileCalls:
    """Executes functions that may hang. Used in one event loop."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._threads = asyncio.Semaphore(THREADS_LIMIT)
        self._hanging: Counter[str] = Counter()

    async def run(self, place: str, function: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
        """Return the result of ``function``, or raise its error.

        Args:
            place: names what it accesses. While several calls for the same place hang, others fail at once.
            discard: called with the result if it comes after this has raised.

        Raises:
            FileSystemHangs
        """
        await self._take_thread(place)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            self._threads.release()
            if done.cancelled():
                self._hanging -= Counter([place])
                if error is None:
                    discard(result)  # type: ignore[arg-type]
            elif error is None:
                done.set_result(result)  # type: ignore[arg-type]
            else:
                done.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:
                failure = error
            # The loop may have been closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, result, failure)

        # Not in a pool: the program would wait for the end of the pool's threads. And others would wait for a thread.
        try:
            threading.Thread(target=work, name="files", daemon=True).start()
        except RuntimeError:
            # The machine allows no more threads.
            self._threads.release()
            raise
        try:
            await asyncio.wait([done], timeout=self._timeout_s)
        except asyncio.CancelledError:
            if not done.done():
                self._abandon(place, done)
            elif done.exception() is None:
                discard(done.result())
            raise
        if not done.done():
            self._abandon(place, done)
            raise FileSystemHangs(f"has not responded within {self._timeout_s:g} s")
        return done.result()

    async def _take_thread(self, place: str) -> None:
        """Wait until another thread may be started, which releases ``_threads`` when it ends."""
        if self._hanging[place] >= HANGING_PER_PLACE or self._hanging.total() >= THREADS_LIMIT:
            raise FileSystemHangs("does not respond")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._threads.acquire()
        except TimeoutError:
            raise FileSystemHangs("does not respond") from None

    def _abandon(self, place: str, done: asyncio.Future[T]) -> None:
        done.cancel()
        self._hanging[place] += 1
