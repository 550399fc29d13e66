"""Which lookups of tokens are pending at the controller, and until when? One per token, however many requests wait.

Every lookup ends. With a controller it may take as long as a backend may take to start. Without one it fails soon, also
if the connection breaks while it is pending. A message may be lost at the controller: one that cannot reach its
database does not respond. So the message of a pending lookup is sent again. A lookup that no request waits for is
removed.
`plane.proxy.data_plane.route_lookup` sends the messages and wakes the requests.

The number of lookups is limited. The oldest one makes room: most likely its backend does not become ready, while others
are resolved within milliseconds. So no backend, however many tokens it has, keeps others from being looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from plane.timing import STARTUP_TIMEOUT_S

__all__ = ["DISCONNECTED_TIMEOUT_S", "LOOKUPS_LIMIT", "RESEND_INTERVAL_S", "RESPONSE_TIMEOUT_S", "PendingLookups"]

# Fewer than a controller serves at the same time for one proxy.
LOOKUPS_LIMIT: Final = 8_000
# Without a connection to a controller.
DISCONNECTED_TIMEOUT_S: Final = 10.0
# With one. The controller responds when the backend is ready, or has ended.
RESPONSE_TIMEOUT_S: Final = STARTUP_TIMEOUT_S + 90
# A lost request costs this much, and not the whole timeout.
RESEND_INTERVAL_S: Final = 10.0


@dataclass(slots=True)
class _Lookup:
    started_at: float
    sent_at: float
    waiting: int = 1


class PendingLookups:
    """Lookups by token. Times are in seconds of the proxy's monotonic clock.

    Args:
        now: since when there is no connection.
    """

    def __init__(self, now: float, limit: int = LOOKUPS_LIMIT) -> None:
        self._limit = limit
        self._lookups: dict[str, _Lookup] = {}
        self._disconnected_at: float | None = now

    def __len__(self) -> int:
        return len(self._lookups)

    def join(self, token: str, now: float) -> bool:
        """Add a waiting request. Return whether the lookup is new: then send it, and call `make_room`."""
        lookup = self._lookups.get(token)
        if lookup is not None:
            lookup.waiting += 1
            return False
        self._lookups[token] = _Lookup(started_at=now, sent_at=now)
        return True

    def make_room(self) -> str | None:
        """Remove the oldest lookup if there are too many. Return its token: it has failed."""
        if len(self._lookups) <= self._limit:
            return None
        token = next(iter(self._lookups))
        del self._lookups[token]
        return token

    def leave(self, token: str) -> None:
        """Remove a waiting request, which got its response or whose client is gone."""
        lookup = self._lookups.get(token)
        if lookup is not None:
            lookup.waiting -= 1

    def resolved(self, token: str) -> None:
        """Remove a lookup to which the controller has responded."""
        self._lookups.pop(token, None)

    def connected(self, now: float) -> list[str]:
        """Handle a new connection. Return the tokens to send on it."""
        self._disconnected_at = None
        for lookup in self._lookups.values():
            lookup.sent_at = now
        return list(self._lookups)

    def disconnected(self, now: float) -> None:
        """Handle the end of the connection."""
        self._disconnected_at = now

    def poll(self, now: float) -> tuple[list[str], list[str], list[str]]:
        """Return the tokens to send again, those that have failed, and those without a waiting request.

        The latter two are removed, so that the next request starts a new lookup. They are not removed earlier: so a
        client that connects and disconnects causes no more than one lookup per call.
        """
        again, failed, abandoned = [], [], []
        for token, lookup in list(self._lookups.items()):
            if lookup.waiting <= 0:
                abandoned.append(token)
                del self._lookups[token]
            elif now >= self._fails_at(lookup):
                failed.append(token)
                del self._lookups[token]
            elif self._disconnected_at is None and now - lookup.sent_at >= RESEND_INTERVAL_S:
                again.append(token)
                lookup.sent_at = now
        return again, failed, abandoned

    def _fails_at(self, lookup: _Lookup) -> float:
        if self._disconnected_at is None:
            return lookup.started_at + RESPONSE_TIMEOUT_S
        return max(lookup.started_at, self._disconnected_at) + DISCONNECTED_TIMEOUT_S
