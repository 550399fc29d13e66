"""Where does a token lead, as far as the proxy knows? A bounded cache of the controller's answers.

Positive answers: least recently used goes first, and a token that has expired leads nowhere, cached or not (A4).
Negative answers live a few seconds, in a cache of their own, so a flood of bad tokens evicts no good route and a
token that was asked for too early works soon (A5). `plane.proxy.data_plane.route_lookup` asks the controller.

A route is followed only as long as a controller would have told of its end. A proxy that was without a connection may
have missed that: after a reconnect each route is asked for again at its next use, and a lease after the connection
ended none is followed, since by then the key, and after it the port, may be another backend's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from plane.timing import KEY_LEASE_S

__all__ = ["RouteCache"]

ROUTES_LIMIT = 100_000
NEGATIVES_LIMIT = 10_000
NEGATIVE_LIFETIME_S = 3.0
# An answer that was on its way when its token was revoked does not bring the route back. Longer than an answer takes.
REVOKED_LIFETIME_S = 60.0

# Likewise for an answer that was on its way when its backend ended.
REMOVED_LIFETIME_S = 60.0
# How long routes are followed after the end of the connection on which they were learned or confirmed.
FOLLOWED_S = KEY_LEASE_S

R = TypeVar("R")


@dataclass(slots=True)
class _Entry(Generic[R]):
    route: R
    backend_id: str
    expires_at: float | None
    # The connection to a controller on which it was learned.
    connection: int


class RouteCache(Generic[R]):
    """Answers by token. Times are in seconds of the proxy's monotonic clock."""

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
        # When connections ended, as far as their routes are followed still.
        self._ended_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, token: str, now: float) -> R | Literal["gone", "unconfirmed"] | None:
        """Return the route of a token, or why there is none.

        ``"gone"``: the token leads nowhere. ``"unconfirmed"``: no controller has been there for too long. None: the
        controller must be asked.
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
        """What becomes of a route whose connection has ended."""
        if self._is_connected:
            return None
        ended_at = self._ended_at.get(entry.connection)
        return entry.route if ended_at is not None and now - ended_at < FOLLOWED_S else "unconfirmed"

    def connected(self, now: float) -> None:
        """Handle a new connection: routes that were learned on another one are asked for again."""
        self._connection += 1
        self._is_connected = True
        self._ended_at = {number: end for number, end in self._ended_at.items() if now - end < FOLLOWED_S}

    def disconnected(self, now: float) -> None:
        """Handle the end of the connection."""
        if self._is_connected:
            self._is_connected = False
            self._ended_at[self._connection] = now

    def doubt(self) -> None:
        """Confirm no route that is known: for a time nobody looked whether there is a connection."""
        self._connection += 1
        self._ended_at.clear()

    def put(self, token: str, route: R, backend_id: str, expires_at: float | None, now: float) -> None:
        """The controller knows a route; ``expires_at`` is when the token ends, None for never."""
        if token in self._revoked:
            return
        if now < self._removed.get(backend_id, now):
            # The answer had left before the news of the end.
            self.put_gone(token, now)
            return
        self._negatives.pop(token, None)
        self._drop(token)
        self._routes[token] = _Entry(route, backend_id, expires_at, self._connection)
        self._by_backend.setdefault(backend_id, set()).add(token)
        if len(self._routes) > self._routes_limit:
            self._drop(next(iter(self._routes)))

    def put_gone(self, token: str, now: float) -> None:
        """The controller knows no route."""
        self._drop(token)
        self._negatives[token] = now + NEGATIVE_LIFETIME_S
        self._negatives.move_to_end(token)
        if len(self._negatives) > self._negatives_limit:
            self._negatives.popitem(last=False)

    def revoke(self, token: str, now: float) -> None:
        """The token leads nowhere any more, whatever an older answer says (A3)."""
        self._drop(token)
        self._revoked[token] = now + REVOKED_LIFETIME_S
        if len(self._revoked) > self._negatives_limit:
            self._revoked.popitem(last=False)

    def remove_backend(self, backend_id: str, now: float) -> None:
        """The backend has ended: none of its tokens leads there, whatever an older answer says."""
        self.forget_backend(backend_id)
        self._removed[backend_id] = now + REMOVED_LIFETIME_S
        self._removed.move_to_end(backend_id)
        if len(self._removed) > self._negatives_limit:
            self._removed.popitem(last=False)

    def forget_backend(self, backend_id: str) -> None:
        """Have the controller asked about each of the backend's tokens."""
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
