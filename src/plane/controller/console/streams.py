"""Keeps open pages up to date with server-sent events, at a cost that does not grow with their number.

A `SharedView` is what many pages show. One task per view renders it while at least one page watches; all pages get the
same bytes. Each page has a `Mailbox` with one place per part of the page: a slow reader misses intermediate versions,
and never the last one. A page that accepts nothing for `WRITE_TIMEOUT_S` is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext

import structlog
from aiohttp import web

from plane.controller.api.endpoints import EVENT_STREAM
from plane.controller.api.stream_registry import StreamRegistry
from plane.protocol.errors import ApiErrorKind, ApiFailure, PlaneError
from plane.tasks import OwnedTasks, end_tasks

__all__ = ["Mailbox", "PageStreams", "SharedViews", "encode_event"]

MAX_STREAMS = 1000
KEEPALIVE_INTERVAL_S = 15.0
WRITE_TIMEOUT_S = 15.0
# Between two messages to one page, so that bursts arrive as one.
MIN_SPACING_S = 0.5
POLL_INTERVAL_S = 2.0

Render = Callable[[], Awaitable[Mapping[str, str]]]
Subscribe = Callable[[Callable[[object], None]], AbstractContextManager[None]]

log = structlog.get_logger("plane.controller")


def encode_event(name: str, data: str) -> bytes:
    """Return a server-sent event."""
    lines = "\n".join(f"data: {line}" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n\n".encode()


class Mailbox:
    """The events that one page has not received yet: the last one of each place."""

    def __init__(self) -> None:
        self._pending: dict[str, bytes] = {}
        self._filled = asyncio.Event()

    def put(self, place: str, event: bytes) -> None:
        """Replace the pending event of ``place``."""
        self._pending[place] = event
        self._filled.set()

    async def take(self, timeout_s: float) -> bytes:
        """Wait for events, and return all pending ones; empty after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return b""
        self._filled.clear()
        pending, self._pending = self._pending, {}
        return b"".join(pending.values())


class _View:
    """One view: its last parts, and the mailboxes of the pages that watch it."""

    def __init__(self, render: Render, interval_s: float, subscribe: Subscribe | None) -> None:
        self._render = render
        self._interval_s = interval_s
        self._subscribe = subscribe
        self._parts: dict[str, bytes] = {}
        self._watchers: set[Mailbox] = set()
        self._changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def is_watched(self) -> bool:
        return bool(self._watchers)

    def add(self, mailbox: Mailbox) -> None:
        self._watchers.add(mailbox)
        for name, event in self._parts.items():
            mailbox.put(name, event)

    def remove(self, mailbox: Mailbox) -> None:
        self._watchers.discard(mailbox)

    async def run(self) -> None:
        """Render until cancelled."""
        # Subscribed first: what changes while the view is rendered is rendered again.
        with nullcontext() if self._subscribe is None else self._subscribe(self._on_change):
            await self._render_on_change()

    def _on_change(self, _: object) -> None:
        self._changed.set()

    async def _render_on_change(self) -> None:
        while True:
            self._changed.clear()
            try:
                parts = dict(await self._render())
                # An empty text removes an earlier message.
                parts["stale"] = ""
            except PlaneError as error:
                parts = {"stale": f"Not up to date: {error}"}
            for name, data in parts.items():
                event = encode_event(name, data)
                if self._parts.get(name) != event:
                    self._parts[name] = event
                    for mailbox in self._watchers:
                        mailbox.put(name, event)
            await asyncio.sleep(MIN_SPACING_S)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                continue


class SharedViews:
    """The views that are watched at present, by name."""

    def __init__(self) -> None:
        self._views: dict[str, _View] = {}
        self._tasks = OwnedTasks(_log_failure)

    def __len__(self) -> int:
        return len(self._views)

    @contextmanager
    def watch(
        self,
        name: str,
        render: Render,
        mailbox: Mailbox,
        subscribe: Subscribe | None = None,
        interval_s: float = POLL_INTERVAL_S,
    ) -> Iterator[None]:
        """Put the parts of the view ``name`` into ``mailbox`` while the block runs, whenever they change.

        Args:
            name: of the view; all pages that watch the same name get the same parts.
            render: returns the parts of the view; called every ``interval_s`` and after a change.
            mailbox: of the page.
            subscribe: calls back on a change while its block runs.
            interval_s: between two renderings without a change.
        """
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = _View(render, interval_s, subscribe)
        view.add(mailbox)
        if view.task is None or view.task.done():
            view.task = self._tasks.start(view.run())
        try:
            yield
        finally:
            view.remove(mailbox)
            if not view.is_watched:
                view.task.cancel()
                del self._views[name]

    async def end(self) -> None:
        """End all views."""
        await self._tasks.end()


def _log_failure(error: BaseException) -> None:
    log.error("console view failed; its pages are not updated", exc_info=error)


class PageStreams:
    """The open streams of pages, bounded in number.

    Args:
        registry: of the controller's endless responses.
        max_streams: more are refused.
        write_timeout_s: a page that does not take a message within this time is dropped.
        keepalive_s: between two messages to a silent page, and between two looks at a page's session.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        max_streams: int = MAX_STREAMS,
        keepalive_s: float = KEEPALIVE_INTERVAL_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._registry = registry
        self._max_streams = max_streams
        self._keepalive_s = keepalive_s
        self._write_timeout_s = write_timeout_s
        self._open = 0

    def __len__(self) -> int:
        return self._open

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Count the current handler as an open stream while the block runs, and end it when the controller stops.

        Raises:
            ApiFailure: 503, too many are open.
        """
        if self._open >= self._max_streams:
            raise ApiFailure(503, ApiErrorKind.OTHER, "Too many pages of the console are open", retry_after_s=30)
        self._open += 1
        try:
            with self._registry.entered():
                yield
        finally:
            self._open -= 1

    @asynccontextmanager
    async def ended_with_session(self, request: web.Request, is_admitted: Callable[[], bool]) -> AsyncIterator[None]:
        """Abort the request's connection if its session ends while the block runs; for streams that others write.

        Raises:
            ApiFailure: 503, too many are open.
        """

        async def watch() -> None:
            while is_admitted():
                await asyncio.sleep(self._keepalive_s)
            if request.transport is not None:
                request.transport.abort()

        async with self.entered():
            watching = asyncio.create_task(watch())
            try:
                yield
            finally:
                await end_tasks([watching])

    async def send(self, request: web.Request, mailbox: Mailbox, is_admitted: Callable[[], bool]) -> web.StreamResponse:
        """Send a page its events until it disconnects, stalls, or is no longer admitted.

        Raises:
            ApiFailure: 503, too many pages are open.
        """
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM})
        async with self.entered():
            try:
                await response.prepare(request)
                while is_admitted():
                    data = await mailbox.take(self._keepalive_s)
                    async with asyncio.timeout(self._write_timeout_s):
                        await response.write(data or b":\n\n")
                    await asyncio.sleep(MIN_SPACING_S)
                await response.write(encode_event("signed-out", ""))
                await response.write_eof()
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
        return response
