"""Where does a token lead, as far as the proxy knows? A bounded cache of the controller's responses.

The least recently used route is evicted first, and an expired token has no route, cached or not. Negative
responses expire after a few seconds and have a cache of their own: so a flood of bad tokens evicts no route, and a
token that was requested too early works soon. `plane.proxy.data_plane.route_lookup` sends requests to the controller.

A route is followed only while a controller would have announced its end. A proxy without a connection may miss that.
So each route is looked up again at its first use after a reconnect. One lease after the connection ended no route is
followed: the key, and after it the port, may belong to another backend by then.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, Literal, TypeVar

import msgspec

from plane.timing import KEY_LEASE_S

__all__ = ["RouteCache"]

ROUTES_LIMIT: Final = 100_000
NEGATIVES_LIMIT: Final = 10_000
NEGATIVE_LIFETIME_S: Final = 3.0
# A response that was in transit when its token was revoked does not restore the route. Longer than a response takes.
REVOKED_LIFETIME_S: Final = 60.0
# The same for a response that was in transit when its backend ended.
REMOVED_LIFETIME_S: Final = 60.0
# How long routes are followed after the end of the connection on which they were learned or confirmed.
DISCONNECTED_LIFETIME_S: Final = KEY_LEASE_S

R = TypeVar("R")


class _Entry(msgspec.Struct, Generic[R]):
    route: R
    backend_id: str
    expires_at: float | None
    # The connection to a controller on which it was learned.
    connection: int


class RouteCache(Generic[R]):
    """Routes by token. Times are in seconds of the proxy's monotonic clock."""

    def __init__(self, routes_limit: int = ROUTES_LIMIT, negatives_limit: int = NEGATIVES_LIMIT) -> None:
        self._routes_limit = routes_limit
        self._negatives_limit = negatives_limit
        self._routes: OrderedDict[str, _Entry[R]] = OrderedDict()
        self._by_backend: dict[str, set[str]] = {}
        self._negatives: OrderedDict[str, float] = OrderedDict()
        self._revoked: OrderedDict[str, float] = OrderedDict()
        self._removed: OrderedDict[str, float] = OrderedDict()
        self._connection = 0
        self._is_connected = True
        # When connections ended, for those whose routes are still followed.
        self._ended_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, token: str, now: float) -> R | Literal["gone", "unconfirmed"] | None:
        """Return the route of a token, or why there is none.

        ``"gone"``: the token has no route. ``"unconfirmed"``: there has been no connection to a controller for
        too long. None: the token must be looked up.
        """
        entry = self._routes.get(token)
        if entry is not None:
            if entry.expires_at is None or now < entry.expires_at:
                self._routes.move_to_end(token)
                if entry.connection == self._connection and self._is_connected:
                    return entry.route
                return self._unconfirmed(entry, now)
            self._drop(token)
        for gone in (self._negatives, self._revoked):
            until = gone.get(token)
            if until is not None:
                if now < until:
                    return "gone"
                del gone[token]
        return None

    def _unconfirmed(self, entry: _Entry[R], now: float) -> R | Literal["unconfirmed"] | None:
        """Return a route whose connection has ended, if it is still followed."""
        if self._is_connected:
            return None
        ended_at = self._ended_at.get(entry.connection)
        return entry.route if ended_at is not None and now - ended_at < DISCONNECTED_LIFETIME_S else "unconfirmed"

    def connected(self, now: float) -> None:
        """Handle a new connection: routes of earlier ones are looked up again."""
        self._connection += 1
        self._is_connected = True
        self._ended_at = {number: end for number, end in self._ended_at.items() if now - end < DISCONNECTED_LIFETIME_S}

    def disconnected(self, now: float) -> None:
        """Handle the end of the connection."""
        if self._is_connected:
            self._is_connected = False
            self._ended_at[self._connection] = now

    def distrust(self) -> None:
        """Follow no cached route: the end of the connection may have gone unnoticed for a while."""
        self._connection += 1
        self._ended_at.clear()

    def put(self, token: str, route: R, backend_id: str, expires_at: float | None, now: float) -> None:
        """Store a route. ``expires_at``: when its token expires, None for never."""
        if token in self._revoked:
            return
        if now < self._removed.get(backend_id, now):
            # The response was sent before the message that the backend has ended.
            self.put_gone(token, now)
            return
        self._negatives.pop(token, None)
        self._drop(token)
        self._routes[token] = _Entry(route, backend_id, expires_at, self._connection)
        self._by_backend.setdefault(backend_id, set()).add(token)
        if len(self._routes) > self._routes_limit:
            self._drop(next(iter(self._routes)))

    def put_gone(self, token: str, now: float) -> None:
        """Store that a token has no route."""
        self._drop(token)
        self._negatives[token] = now + NEGATIVE_LIFETIME_S
        self._negatives.move_to_end(token)
        if len(self._negatives) > self._negatives_limit:
            self._negatives.popitem(last=False)

    def revoke(self, token: str, now: float) -> None:
        """Drop a revoked token's route, which a response in transit must not restore."""
        self._drop(token)
        self._revoked[token] = now + REVOKED_LIFETIME_S
        if len(self._revoked) > self._negatives_limit:
            self._revoked.popitem(last=False)

    def remove_backend(self, backend_id: str, now: float) -> None:
        """Drop the routes of a backend that has ended, which a response in transit must not restore."""
        self.forget_backend(backend_id)
        self._removed[backend_id] = now + REMOVED_LIFETIME_S
        self._removed.move_to_end(backend_id)
        if len(self._removed) > self._negatives_limit:
            self._removed.popitem(last=False)

    def forget_backend(self, backend_id: str) -> None:
        """Drop the routes of a backend, so that each of its tokens is looked up again."""
        for token in self._by_backend.pop(backend_id, ()):
            self._routes.pop(token, None)

    def _drop(self, token: str) -> None:
        entry = self._routes.pop(token, None)
        if entry is None:
            return
        tokens = self._by_backend[entry.backend_id]
        tokens.discard(token)
        if not tokens:
            del self._by_backend[entry.backend_id]
