"""Where does a token lead, as far as the proxy knows? A bounded cache of the controller's answers.

Positive answers: least recently used goes first, and a token that has expired leads nowhere, cached or not (A4).
Negative answers live a few seconds, in a cache of their own, so a flood of bad tokens evicts no good route and a
token that was asked for too early works soon (A5). `plane.proxy.route_lookup` asks the controller.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

__all__ = ["RouteCache"]

ROUTES_LIMIT = 100_000
NEGATIVES_LIMIT = 10_000
NEGATIVE_LIFETIME_S = 3.0
# An answer that was on its way when its token was revoked does not bring the route back. Longer than an answer takes.
REVOKED_LIFETIME_S = 60.0

R = TypeVar("R")


@dataclass(slots=True)
class _Entry(Generic[R]):
    route: R
    backend_id: str
    expires_at: float | None


class RouteCache(Generic[R]):
    """Answers by token. Times are in seconds of the proxy's monotonic clock."""

    def __init__(self, routes_limit: int = ROUTES_LIMIT, negatives_limit: int = NEGATIVES_LIMIT) -> None:
        self._routes_limit = routes_limit
        self._negatives_limit = negatives_limit
        self._routes: OrderedDict[str, _Entry[R]] = OrderedDict()
        self._by_backend: dict[str, set[str]] = {}
        self._negatives: OrderedDict[str, float] = OrderedDict()
        self._revoked: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, token: str, now: float) -> R | Literal["gone"] | None:
        """The route; ``"gone"`` if the token leads nowhere; None if the controller must be asked."""
        entry = self._routes.get(token)
        if entry is not None:
            if entry.expires_at is None or now < entry.expires_at:
                self._routes.move_to_end(token)
                return entry.route
            self._drop(token)
        for gone in (self._negatives, self._revoked):
            until = gone.get(token)
            if until is not None:
                if now < until:
                    return "gone"
                del gone[token]
        return None

    def put(self, token: str, route: R, backend_id: str, expires_at: float | None) -> None:
        """The controller knows a route; ``expires_at`` is when the token ends, None for never."""
        if token in self._revoked:
            return
        self._negatives.pop(token, None)
        self._drop(token)
        self._routes[token] = _Entry(route, backend_id, expires_at)
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

    def remove_backend(self, backend_id: str) -> None:
        """The backend is no more: none of its tokens leads there."""
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
