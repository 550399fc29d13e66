"""Operations on the files of backends, one after the other on a thread of its own.

A disk may hang. The drone's other work must not wait for it: without renewals its backends would lose their keys. A
pool of threads would be used up by those that wait, and the program would wait for them when it ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["DiskThread"]

# A disk that takes longer hangs.
TIMEOUT_S = 2.0

T = TypeVar("T")


class DiskThread:
    """Executes operations in the order of their calls. The thread is started by the first one."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._operations: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """The operations that have not begun."""
        return self._operations.qsize()

    async def run(self, operation: Callable[[], T]) -> T:
        """Execute ``operation`` and return its result, or raise its error. It is executed even if this is cancelled."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def deliver(set_outcome: Callable[[], None]) -> None:
            if not done.done():
                set_outcome()

        def execute() -> None:
            outcome: Callable[[], None]
            try:
                result = operation()
            except Exception as error:
                failure = error
                outcome = lambda: done.set_exception(failure)  # noqa: E731 - an error's name ends with its block
            else:
                outcome = lambda: done.set_result(result)  # noqa: E731
            # The loop may have been closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, outcome)

        self._submit(execute)
        return await done

    async def run_in_time(self, operation: Callable[[], T]) -> T:
        """Like `run`, for somebody who does not wait for a disk that hangs.

        Raises:
            TimeoutError: the operation is not complete, and will be executed later.
        """
        async with asyncio.timeout(self._timeout_s):
            return await self.run(operation)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """End the thread after the operations that wait and ``last``. Block until then, unless the disk hangs."""
        self._submit(last)
        self._operations.put(None)
        assert self._thread is not None
        self._thread.join(self._timeout_s)

    def _submit(self, operation: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="backend files", daemon=True)
            self._thread.start()
        self._operations.put(operation)

    def _work(self) -> None:
        while (operation := self._operations.get()) is not None:
            operation()
