"""Connections to backends: one exchange at a time on each, and a pool of those that are free.

`UpstreamConnection` reads the answer and passes it to the client's connection; bodies pass untouched. A
connection with bytes left over, or whose end is in doubt, is never used again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import structlog

from plane.decisions.http.chunks import ChunkDecoder, ChunkScanner, MalformedChunks
from plane.decisions.http.response_head import (
    UNTIL_CLOSE,
    AnswerHead,
    InvalidAnswer,
    could_become_head,
    read_answer_head,
)
from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.idle_connection import is_quiet
from plane.proxy.data_plane.limits import POOL_LIMIT
from plane.proxy.data_plane.lost_peers import notice_lost_peer
from plane.settings import ProxySettings

if TYPE_CHECKING:
    from plane.proxy.data_plane.client_connection import ClientConnection

__all__ = ["UpstreamConnection", "UpstreamPool"]

log = structlog.get_logger("plane.proxy")


class UpstreamConnection(asyncio.Protocol):
    """One connection to a backend. `begin` starts an exchange; the client's connection is told of its course."""

    __slots__ = (
        "_buffer",
        "_client",
        "_head",
        "_last_read",
        "_left",
        "_method_is_head",
        "_scanner",
        "answered",
        "closed",
        "freed_at",
        "last_head",
        "pool",
        "reused",
        "route",
        "transport",
        "writing_paused",
    )

    def __init__(self, route: Route, pool: UpstreamPool) -> None:
        self.route = route
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self._client: ClientConnection | None = None
        self._buffer = b""
        self._head: AnswerHead | None = None
        self._left = 0
        self._scanner: ChunkScanner | None = None
        self._method_is_head = False
        self._last_read = (b"", False)
        # Of the last response. It also tells for how long the free connection may be used again.
        self.last_head: AnswerHead | None = None
        # Whether anything of the answer has come.
        self.answered = False
        self.reused = False
        self.closed = False
        self.freed_at = 0.0
        # The backend reads more slowly than the request comes.
        self.writing_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self.transport = cast("asyncio.Transport", transport)
        self.pool.open += 1

    def begin(self, client: ClientConnection, head: bytes, *, is_head_request: bool) -> None:
        """Send a request's head and expect its answer."""
        assert self.transport is not None
        self._client = client
        self._head = None
        self._method_is_head = is_head_request
        self.answered = False
        self.transport.write(head)

    @property
    def response_head_begun(self) -> bool:
        """Whether a part of a head has come, and its end has not."""
        return bool(self._buffer)

    def may_serve_once(self, now: float) -> bool:
        """Return whether a free connection may be used for a request that cannot be repeated."""
        assert self.transport is not None
        assert self.last_head is not None
        return now - self.freed_at < self.last_head.unrepeatable_reuse_s and is_quiet(self.transport)

    def data_received(self, data: bytes) -> None:
        client = self._client
        if client is None:
            # Bytes that nobody asked for.
            self.abort()
            return
        self.answered = True
        if self._head is None:
            self._take_head(client, self._buffer + data if self._buffer else data)
        else:
            self._take_body(client, data)

    def _take_head(self, client: ClientConnection, data: bytes) -> None:
        start = 0
        while True:
            end = data.find(b"\r\n\r\n", start)
            if end < 0:
                self._wait_for_head(client, data[start:] if start else data)
                return
            try:
                head = self._read_head(data[start:end])
            except InvalidAnswer as error:
                self._fail(client, str(error))
                return
            start = end + 4
            if head.status >= 200 or head.status == 101:
                break
            client.interim(head)
        if self._buffer:
            self._buffer = b""
            client.response_head_complete()
        rest = data[start:]
        if head.status == 101:
            self._switch(client, head, rest)
            return
        self._head = head
        self._left = head.length if head.length is not None and head.length > 0 else 0
        if head.length is None:
            self._scanner = (ChunkScanner if client.knows_chunks() else ChunkDecoder)(self.pool.http_limits)
        else:
            self._scanner = None
        body = b""
        if self._left and len(rest) == self._left:
            body, rest = rest, b""
        client.answer_begins(head, body)
        if head.length == 0 or body:
            # Bytes after the end belong to no response: they are dropped, and the connection is not used again.
            self._finish(client, reusable=not rest)
        elif rest:
            self._take_body(client, rest)

    def _wait_for_head(self, client: ClientConnection, part: bytes) -> None:
        """Keep the part of a head that has come, unless it is none."""
        self._buffer = part
        if len(part) > self.pool.http_limits.answer_head_bytes:
            self._fail(client, "answer's head too large")
        elif not could_become_head(part):
            self._fail(client, "malformed head")
        elif part:
            client.response_head_incomplete()
        else:
            client.response_head_complete()

    def _read_head(self, head: bytes) -> AnswerHead:
        """Read a head. A backend mostly repeats its answers' heads to the byte, within a second at least."""
        read = (head, self._method_is_head)
        if read == self._last_read and self.last_head is not None:
            return self.last_head
        self.last_head = read_answer_head(
            head, to_head_request=self._method_is_head, shares_origin=self.route.shares_origin
        )
        self._last_read = read
        return self.last_head

    def _take_body(self, client: ClientConnection, data: bytes) -> None:
        if self._scanner is not None:
            self._take_chunks(client, self._scanner, data)
        elif self._head is not None and self._head.length == UNTIL_CLOSE:
            client.answer_body(data)
        elif len(data) < self._left:
            self._left -= len(data)
            client.answer_body(data)
        else:
            clean = len(data) == self._left
            client.answer_body(data if clean else data[: self._left])
            self._finish(client, reusable=clean)

    def _take_chunks(self, client: ClientConnection, scanner: ChunkScanner, data: bytes) -> None:
        try:
            passed, taken = scanner.feed(data)
        except MalformedChunks as error:
            self._fail(client, str(error))
            return
        client.answer_body(passed)
        if scanner.done:
            self._finish(client, reusable=taken == len(data))

    def _switch(self, client: ClientConnection, head: AnswerHead, early: bytes) -> None:
        if not client.asked_for_upgrade():
            self._fail(client, "101 that was not asked for")
            return
        self._client = None
        # From now on it is the tunnel's.
        self.pool.open -= 1
        client.tunnel(head, early, self)

    def _finish(self, client: ClientConnection, *, reusable: bool) -> None:
        assert self._head is not None
        head = self._head
        keep = reusable and head.keep_alive
        self._client = None
        self._head = None
        if keep and client.request_is_complete() and not self.writing_paused:
            if client.writing_paused:
                # The next client is not to wait for this one's reading.
                assert self.transport is not None
                self.transport.resume_reading()
            if head.announces_absent_body:
                # If the body comes after all, it must not be the beginning of another client's response.
                self.freed_at = self.pool.now()
                client.kept_upstream = self
            else:
                self.pool.put(self)
        else:
            self.abort()
        client.answer_ends()

    def _fail(self, client: ClientConnection, why: str) -> None:
        log.warning("backend's answer is not HTTP", backend=self.route.backend_id, reason=why)
        self._client = None
        self.abort()
        client.backend_failed(answered=self._head is not None)

    def abort(self) -> None:
        """End the connection now."""
        self.closed = True
        self._client = None
        if self.transport is not None:
            self.transport.abort()

    def eof_received(self) -> bool:
        """The backend sends no more; `connection_lost` follows."""
        self.closed = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.pool.lost(self)
        client, self._client = self._client, None
        if client is None:
            return
        if self._head is not None and self._head.length == UNTIL_CLOSE and error is None:
            client.answer_ends()
        elif not self.answered and self.reused and client.may_retry():
            client.retry()
        else:
            client.backend_failed(answered=self._head is not None)

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self._client is not None:
            self._client.pause_request()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._client is not None:
            self._client.resume_request()


class UpstreamPool:
    """Free connections per backend; the last one freed is used first."""

    def __init__(self, settings: ProxySettings) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._connect_s = settings.limits.connect_s
        self._lost_after_s = settings.limits.lost_after_s
        self.http_limits = settings.http_limits
        # Connections that are open, free or not.
        self.open = 0
        self._free: dict[str, list[UpstreamConnection]] = {}

    def take(self, route: Route, *, repeatable: bool) -> UpstreamConnection | None:
        """Return a free connection that may serve a request, if there is one.

        ``repeatable``: whether the request can be sent again if the backend has closed the connection.
        """
        free = self._free.get(route.backend_id)
        now = self.now()
        while free:
            upstream = free.pop()
            if upstream.closed:
                continue
            # A call less on the path of most requests.
            assert upstream.last_head is not None
            if now - upstream.freed_at < upstream.last_head.reuse_s if repeatable else upstream.may_serve_once(now):
                upstream.reused = True
                return upstream
            # The others have been free for longer. `close_idle` closes those that are of no use to anybody.
            free.append(upstream)
            return None
        return None

    async def connect(self, route: Route) -> UpstreamConnection:
        """A new connection.

        Raises:
            OSError: refused or unreachable.
            TimeoutError: not accepted in time.
        """
        async with asyncio.timeout(self._connect_s):
            _, upstream = await self._loop.create_connection(
                lambda: UpstreamConnection(route, self), route.host, route.port
            )
        assert upstream.transport is not None
        notice_lost_peer(upstream.transport.get_extra_info("socket"), self._lost_after_s)
        return upstream

    def put(self, upstream: UpstreamConnection) -> None:
        """An exchange is over; the connection is free."""
        free = self._free.setdefault(upstream.route.backend_id, [])
        if upstream.closed or len(free) >= POOL_LIMIT:
            upstream.abort()
            return
        upstream.freed_at = self.now()
        free.append(upstream)

    def lost(self, upstream: UpstreamConnection) -> None:
        """A connection has ended."""
        self.open -= 1
        free = self._free.get(upstream.route.backend_id)
        if free is not None and upstream in free:
            free.remove(upstream)
            if not free:
                del self._free[upstream.route.backend_id]

    def remove_backend(self, backend_id: str) -> None:
        """The backend is no more."""
        for upstream in self._free.pop(backend_id, ()):
            upstream.abort()

    def close_idle(self, now: float) -> None:
        """Close those that have been free for too long to be used again."""
        for backend_id, free in list(self._free.items()):
            for upstream in free[:]:
                assert upstream.last_head is not None
                if now - upstream.freed_at >= upstream.last_head.reuse_s:
                    free.remove(upstream)
                    upstream.abort()
            if not free:
                self._free.pop(backend_id, None)

    def close(self) -> None:
        """Close all."""
        for backend_id in list(self._free):
            self.remove_backend(backend_id)
