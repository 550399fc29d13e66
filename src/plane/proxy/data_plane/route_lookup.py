"""Where does a token lead? From the cache, else from the controller, with one lookup per token for all requests.

`plane.decisions.routing.route_cache` caches routes. `plane.decisions.routing.pending_lookups` decides what is sent to
the controller, sent again, or given up. Only `run` sends: a request that ends while it waits interrupts no message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, Literal, Protocol

import structlog

from plane.decisions.routing.pending_lookups import LOOKUPS_LIMIT, PendingLookups
from plane.decisions.routing.rewrite import Route, make_route
from plane.decisions.routing.route_cache import RouteCache
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfoResponse
from plane.tasks import run_together
from plane.throttled_log import ThrottledWarning

__all__ = ["RouteLookup", "RouteWaiter"]

# How often lookups are checked that have failed or are to be sent again.
POLL_INTERVAL_S: Final = 1.0
# After this long without a check, the process was stopped or its machine suspended. No load causes that.
SUSPENDED_AFTER_S: Final = 10.0

log = structlog.get_logger("plane.proxy")


class RouteWaiter(Protocol):
    """A request that waits for a route."""

    def route_found(self, route: Route | None) -> None:
        """Handle the controller's response. None: the token has no route."""

    def lookup_failed(self) -> None:
        """Handle that there is no response in time, or that there are too many lookups."""


class RouteLookup:
    """The routes of tokens.

    Args:
        send: sends tokens to the controller, or does nothing without a connection.
        server_field: the line ``\\r\\nserver: …``, for the responses of every route.
    """

    def __init__(self, send: Callable[[Sequence[str]], Awaitable[None]], server_field: bytes) -> None:
        self._send = send
        self._server_field = server_field
        self._cache: RouteCache[Route] = RouteCache()
        # Advances while the machine is suspended, as the leases of other machines' backends do.
        self._clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        self._checked_at = self._clock()
        self._too_many = ThrottledWarning(log, "too many pending route lookups; the oldest one failed")
        self._pending = PendingLookups(self._clock(), LOOKUPS_LIMIT)
        # By token, in the order of arrival; a dict, since any of many may leave.
        self._waiters: dict[str, dict[RouteWaiter, None]] = {}
        self._call_soon = asyncio.get_running_loop().call_soon
        self._to_send: list[str] = []
        self._wake = asyncio.Event()

    @property
    def cached_count(self) -> int:
        """The number of cached routes."""
        return len(self._cache)

    @property
    def pending_count(self) -> int:
        """The number of lookups in flight."""
        return len(self._pending)

    def cached(self, token: str) -> Route | Literal["gone", "unconfirmed"] | None:
        """Return what the cache knows of a token; see `RouteCache.get`."""
        now = self._clock()
        if now - self._checked_at > SUSPENDED_AFTER_S:
            self._check_suspension(now)
        return self._cache.get(token, now)

    def _check_suspension(self, now: float) -> None:
        if now - self._checked_at > SUSPENDED_AFTER_S:
            # This process was stopped. The end of its connection may not have been noticed yet.
            self._cache.distrust()
        self._checked_at = now

    def look_up(self, token: str, waiter: RouteWaiter) -> None:
        """Request the route of a token that is not cached. ``waiter`` is called later, unless it leaves before."""
        if self._pending.join(token, self._clock()):
            self._waiters[token] = {waiter: None}
            self._to_send.append(token)
            self._wake.set()
            if (oldest := self._pending.make_room()) is not None:
                self._too_many.warn(limit=LOOKUPS_LIMIT)
                self._fail(oldest)
        else:
            self._waiters[token][waiter] = None

    def leave(self, token: str, waiter: RouteWaiter) -> None:
        """Have ``waiter`` not called any more."""
        waiters = self._waiters.get(token)
        if waiters is not None and waiter in waiters:
            del waiters[waiter]
            self._pending.leave(token)

    def receive(self, response: RouteInfoResponse) -> None:
        """Handle a response of the controller."""
        route: Route | None = None
        now = self._clock()
        info = response.route_info
        if info is not None:
            expires_at = now + info.expires_in_ms / 1000 if isinstance(info.expires_in_ms, int) else None
            try:
                route = make_route(response.token, info, self._server_field, expires_at)
            except MessageError as error:
                log.error("invalid route from controller", backend=info.backend_id, error=str(error))
        if route is None:
            self._cache.put_gone(response.token, now)
        else:
            self._cache.put(response.token, route, route.backend_id, route.expires_at, now)
            if self._cache.get(response.token, now) is not route:
                # The token was revoked, or its backend ended, while the response was in transit.
                route = None
        self._resolve(response.token, route)

    def has_expired(self, route: Route) -> bool:
        """Return whether the token of a route opens nothing more. What it has opened stays open."""
        return route.expires_at is not None and self._clock() >= route.expires_at

    def forget_backend(self, backend_id: str) -> None:
        """Look the tokens of a backend up again, which cannot be reached."""
        self._cache.forget_backend(backend_id)

    def remove_backend(self, backend_id: str) -> None:
        """Follow no route to a backend that has ended, also if a response in transit has one."""
        self._cache.remove_backend(backend_id, self._clock())

    def revoke(self, tokens: Iterable[str]) -> None:
        """Follow no route of revoked tokens, also for requests that wait for one."""
        now = self._clock()
        for token in tokens:
            self._cache.revoke(token, now)
            self._resolve(token, None)

    def connected(self) -> None:
        """Handle a new connection: send pending lookups again, and look each cached token up at its next use."""
        self._cache.connected(self._clock())
        self._to_send = self._pending.connected(self._clock())
        self._wake.set()

    def disconnected(self) -> None:
        """Handle the end of the connection."""
        self._cache.disconnected(self._clock())
        self._pending.disconnected(self._clock())

    async def run(self) -> None:
        """Send lookups, and end those that have timed out, until cancelled."""
        await run_together(self._send_lookups(), self._poll())

    async def _send_lookups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._to_send = self._to_send, []
            await self._send(due)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            now = self._clock()
            self._check_suspension(now)
            again, failed, abandoned = self._pending.poll(now)
            if again:
                self._to_send += again
                self._wake.set()
            for token in failed:
                log.warning("route lookup timed out", token=f"{token[:6]}…")
                self._fail(token)
            for token in abandoned:
                del self._waiters[token]

    def _resolve(self, token: str, route: Route | None) -> None:
        """Pass a response to the requests that wait for it.

        They are called at once: a revocation that arrives next then finds what they have opened.
        """
        self._pending.resolved(token)
        for waiter in self._waiters.pop(token, ()):
            try:
                waiter.route_found(route)
            except Exception as error:
                # It must not end the connection to the controller, which all requests share.
                log.error("unexpected error in a request that waited for its route", exc_info=error)

    def _fail(self, token: str) -> None:
        for waiter in self._waiters.pop(token, ()):
            # Later: the response may lead to another lookup of the same client, which may make another one fail.
            self._call_soon(waiter.lookup_failed)
