"""`Plane`: the control API for programs without asyncio.

An `AsyncPlane` on an event loop in a thread of its own; every method is that of `AsyncPlane`, waited for.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from plane.client.async_client import CALL_LIMIT_S, AsyncPlane

__all__ = ["Plane"]

P = ParamSpec("P")
T = TypeVar("T")


def _waited(
    method: Callable[Concatenate[AsyncPlane, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Plane, P], T]:
    """The method of `Plane` that waits for one of `AsyncPlane`."""

    @functools.wraps(method)
    def call(self: Plane, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._plane, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[AsyncPlane, P], AsyncIterator[T]],
) -> Callable[Concatenate[Plane, P], Iterator[T]]:
    """The method of `Plane` that goes through what one of `AsyncPlane` yields."""

    @functools.wraps(method)
    def call(self: Plane, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self._plane, *args, **kwargs)
        try:
            while True:
                try:
                    yield self._wait(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(_close(items))

    return call


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    # An asynchronous generator, which has to be closed on its own loop.
    close: Callable[[], Awaitable[None]] | None = getattr(items, "aclose", None)
    if close is not None:
        await close()


class Plane:
    """A controller's API, as `AsyncPlane` has it, for programs without asyncio. May be shared by threads.

    Use as ``with``, or call `close`. A process that forks makes its own after the fork.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout_s: float = CALL_LIMIT_S,
    ) -> None:
        self._plane = AsyncPlane(url, token=token, key_file=key_file, timeout_s=timeout_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="plane client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._wait(self._plane.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of ``coroutine``, run on the client's loop; it is cancelled if the waiting is interrupted."""
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    connect = _waited(AsyncPlane.connect)
    status = _waited(AsyncPlane.status)
    status_stream = _iterated(AsyncPlane.status_stream)
    until_ready = _waited(AsyncPlane.until_ready)
    with_output = _waited(AsyncPlane.with_output)
    terminate = _waited(AsyncPlane.terminate)
    logs = _iterated(AsyncPlane.logs)
    usage = _waited(AsyncPlane.usage)
    controller_metrics = _waited(AsyncPlane.controller_metrics)
    revoke = _waited(AsyncPlane.revoke)
    backends = _waited(AsyncPlane.backends)
    backend = _waited(AsyncPlane.backend)
    cluster_state = _waited(AsyncPlane.cluster_state)
    nodes = _waited(AsyncPlane.nodes)
    drain = _waited(AsyncPlane.drain)
    undrain = _waited(AsyncPlane.undrain)
    controller_status = _waited(AsyncPlane.controller_status)
