"""`Plane`: the control API for programs without asyncio.

It runs an `AsyncPlane` on an event loop in a thread of its own, and waits for the result of each method.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from plane.client.async_client import CALL_TIMEOUT_S, AsyncPlane

__all__ = ["Plane"]

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncPlane, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Plane, P], T]:
    """Return the method of `Plane` that waits for one of `AsyncPlane`."""

    @functools.wraps(method)
    def call(self: Plane, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._plane, *args, **kwargs))

    return call


def _blocking_iterator(
    method: Callable[Concatenate[AsyncPlane, P], AsyncIterator[T]],
) -> Callable[Concatenate[Plane, P], Iterator[T]]:
    """Return the method of `Plane` that iterates over the results of one of `AsyncPlane`."""

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
    # An asynchronous generator must be closed on its own loop.
    close: Callable[[], Awaitable[None]] | None = getattr(items, "aclose", None)
    if close is not None:
        await close()


class Plane:
    """The blocking counterpart of `AsyncPlane`. Threads may share it.

    Use it as ``with``, or call `close`. A process that forks must create its own after the fork.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
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
        """Close the connections and stop the thread. A second call has no effect."""
        if self._loop.is_closed():
            return
        self._wait(self._plane.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` on the client's loop and return its result; cancel it if waiting is interrupted."""
        if self._loop.is_closed():
            coroutine.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    connect = _blocking(AsyncPlane.connect)
    status = _blocking(AsyncPlane.status)
    status_stream = _blocking_iterator(AsyncPlane.status_stream)
    until_ready = _blocking(AsyncPlane.until_ready)
    with_output = _blocking(AsyncPlane.with_output)
    terminate = _blocking(AsyncPlane.terminate)
    logs = _blocking_iterator(AsyncPlane.logs)
    usage = _blocking(AsyncPlane.usage)
    controller_metrics = _blocking(AsyncPlane.controller_metrics)
    revoke = _blocking(AsyncPlane.revoke)
    backends = _blocking(AsyncPlane.backends)
    backend = _blocking(AsyncPlane.backend)
    cluster_state = _blocking(AsyncPlane.cluster_state)
    nodes = _blocking(AsyncPlane.nodes)
    drain = _blocking(AsyncPlane.drain)
    undrain = _blocking(AsyncPlane.undrain)
    controller_status = _blocking(AsyncPlane.controller_status)
    events = _blocking(AsyncPlane.events)
    follow_events = _blocking_iterator(AsyncPlane.follow_events)
    set_webhook = _blocking(AsyncPlane.set_webhook)
    webhooks = _blocking(AsyncPlane.webhooks)
    webhook = _blocking(AsyncPlane.webhook)
    delete_webhook = _blocking(AsyncPlane.delete_webhook)
    test_webhook = _blocking(AsyncPlane.test_webhook)
