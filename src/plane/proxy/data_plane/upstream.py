"""Connections to backends: one exchange at a time on each, and a pool of those that are free.

A connection reports to its user, the client's connection whose request it serves. Which connection may be used again
is decided by `plane.decisions.http.exchange`, and for how long by `plane.decisions.http.upstream_keepalive`.
"""

from __future__ import annotations

import asyncio
from typing import cast

from plane.decisions.http.response_reader import ResponseReader
from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.idle_connection import is_quiet
from plane.proxy.data_plane.interfaces import UpstreamUser
from plane.proxy.data_plane.limits import POOL_LIMIT
from plane.proxy.data_plane.lost_peers import notice_lost_peer
from plane.settings import ProxySettings

__all__ = ["UpstreamConnection", "UpstreamPool"]


class UpstreamConnection(asyncio.Protocol):
    """One connection to a backend.

    Attributes:
        route: where it leads.
        responses: reads what the backend sends.
        transport: None before it is connected.
        closed: whether the backend or the proxy has closed it.
        freed_at: when its last exchange was complete.
        writing_paused: the backend reads more slowly than the request comes.
    """

    __slots__ = ("_pool", "_user", "closed", "freed_at", "responses", "route", "transport", "writing_paused")

    def __init__(self, route: Route, pool: UpstreamPool) -> None:
        self.route = route
        self.responses = ResponseReader(shares_origin=route.shares_origin, limits=pool.http_limits)
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.freed_at = 0.0
        self.writing_paused = False
        self._pool = pool
        self._user: UpstreamUser | None = None

    # Events of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self.transport = cast("asyncio.Transport", transport)
        self._pool.open += 1

    def data_received(self, data: bytes) -> None:
        user = self._user
        if user is None:
            # Bytes that belong to no response.
            self.abort()
        else:
            user.upstream_received(data)

    def eof_received(self) -> bool:
        """The backend sends no more; `connection_lost` follows."""
        self.closed = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._pool.lost(self)
        user, self._user = self._user, None
        if user is not None:
            user.upstream_lost(orderly=error is None)

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self._user is not None:
            self._user.upstream_full()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._user is not None:
            self._user.upstream_drained()

    # From its user. See `Upstream`.

    def attach(self, user: UpstreamUser) -> None:
        self._user = user

    def may_serve(self, route: Route, *, repeatable: bool) -> bool:
        return not self.closed and self.route.backend_id == route.backend_id and self.is_fresh(repeatable=repeatable)

    def is_fresh(self, *, repeatable: bool) -> bool:
        """Return whether the connection has not been free for too long to be used again.

        ``repeatable``: whether the request can be sent again if the backend has closed the connection.
        """
        head = self.responses.last_head
        assert head is not None
        free_s = self._pool.now() - self.freed_at
        if repeatable:
            return free_s < head.reuse_s
        assert self.transport is not None
        return free_s < head.unrepeatable_reuse_s and is_quiet(self.transport)

    def release(self) -> None:
        self._user = None
        self._pool.put(self)

    def keep(self) -> None:
        self._user = None
        self.freed_at = self._pool.now()

    def detach_for_tunnel(self) -> None:
        self._user = None
        self._pool.open -= 1

    def abort(self) -> None:
        self.closed = True
        self._user = None
        if self.transport is not None:
            self.transport.abort()


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
            last_head = upstream.responses.last_head
            assert last_head is not None
            # A call less on the path of most requests.
            if now - upstream.freed_at < last_head.reuse_s if repeatable else upstream.is_fresh(repeatable=False):
                return upstream
            # The others have been free for longer. `close_idle` closes those that are of no use to anybody.
            free.append(upstream)
            return None
        return None

    async def connect(self, route: Route) -> UpstreamConnection:
        """Return a new connection.

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
        """Keep a connection whose exchange is complete."""
        free = self._free.setdefault(upstream.route.backend_id, [])
        if upstream.closed or len(free) >= POOL_LIMIT:
            upstream.abort()
            return
        upstream.freed_at = self.now()
        free.append(upstream)

    def lost(self, upstream: UpstreamConnection) -> None:
        """A connection is closed."""
        self.open -= 1
        free = self._free.get(upstream.route.backend_id)
        if free is not None and upstream in free:
            free.remove(upstream)
            if not free:
                del self._free[upstream.route.backend_id]

    def remove_backend(self, backend_id: str) -> None:
        """Close the free connections to a backend that has ended."""
        for upstream in self._free.pop(backend_id, ()):
            upstream.abort()

    def close_idle(self) -> None:
        """Close those that have been free for too long to be used again."""
        for backend_id, free in list(self._free.items()):
            for upstream in free[:]:
                if not upstream.is_fresh(repeatable=True):
                    free.remove(upstream)
                    upstream.abort()
            if not free:
                self._free.pop(backend_id, None)

    def close(self) -> None:
        """Close all."""
        for backend_id in list(self._free):
            self.remove_backend(backend_id)
