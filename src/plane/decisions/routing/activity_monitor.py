"""Is a backend in use? Counts open requests and tunnels, and decides when a keepalive is due.

Every open request counts, tunnel or not. A backend that becomes idle gets one more keepalive at that moment: so its
idle time begins when its use ended, and not up to an interval later. `plane.proxy.data_plane.keepalive_reporter` sends
the keepalives; see `docs/reference/protocol/proxy.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import HEARTBEAT_INTERVAL_S

__all__ = ["ActivityMonitor"]


@dataclass(slots=True)
class _Use:
    sent_at: float
    open: int = 0
    # Since the last poll, and since the last keepalive.
    used_since_poll: bool = True
    used_since_keepalive: bool = False


class ActivityMonitor:
    """The use of every backend that this proxy serves. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def use_started(self, backend_id: str, now: float) -> bool:
        """Count a request or tunnel. Return whether the backend was not in use: then its keepalive is due at once."""
        use = self._uses.get(backend_id)
        if use is None:
            self._uses[backend_id] = _Use(sent_at=now, open=1)
            return True
        use.open += 1
        use.used_since_poll = use.used_since_keepalive = True
        return False

    def use_ended(self, backend_id: str) -> None:
        """Count a request or tunnel no more."""
        use = self._uses.get(backend_id)
        if use is not None:
            use.open -= 1
            use.used_since_poll = use.used_since_keepalive = True

    def poll(self, now: float) -> list[str]:
        """Return the backends whose keepalive is due, and forget those without use since their last one.

        To be called more often than the interval of keepalives.
        """
        due = []
        for backend_id, use in list(self._uses.items()):
            became_idle = use.used_since_keepalive and use.open == 0 and not use.used_since_poll
            in_use = use.open > 0 or use.used_since_keepalive
            if became_idle or (in_use and now - use.sent_at >= HEARTBEAT_INTERVAL_S):
                due.append(backend_id)
                use.sent_at = now
                use.used_since_keepalive = False
            elif not in_use and not use.used_since_poll:
                del self._uses[backend_id]
            use.used_since_poll = False
        return due

    def in_use(self) -> list[str]:
        """Return all backends that are not forgotten, for a new connection to a controller."""
        return list(self._uses)
