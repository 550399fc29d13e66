"""Is a backend in use? Counts requests in flight and tunnels, and remembers what came since the last keepalive.

`plane.proxy.data_plane.keepalive_reporter` sends what is decided here. Rule: page 5, "Keepalive"; every request in
flight counts, tunnel or not (A10). A backend that becomes quiet is kept alive once more at that moment, so that its
idle time begins when its use ended, not up to an interval later.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import HEARTBEAT_INTERVAL_S

__all__ = ["ActivityMonitor"]


@dataclass(slots=True)
class _Use:
    sent_at: float
    open: int = 0
    # Since the last look, and since the last keepalive.
    touched_lately: bool = True
    touched: bool = False


class ActivityMonitor:
    """The use of every backend that this proxy serves. Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def began(self, backend_id: str, now: float) -> bool:
        """A request or tunnel began. True if the backend was not in use: it is to be kept alive at once."""
        use = self._uses.get(backend_id)
        if use is None:
            self._uses[backend_id] = _Use(sent_at=now, open=1)
            return True
        use.open += 1
        use.touched_lately = use.touched = True
        return False

    def ended(self, backend_id: str) -> None:
        """A request or tunnel ended."""
        use = self._uses.get(backend_id)
        if use is not None:
            use.open -= 1
            use.touched_lately = use.touched = True

    def look(self, now: float) -> list[str]:
        """The backends to keep alive now. Those without use since their last keepalive are forgotten.

        To be called more often than the interval of keepalives.
        """
        due = []
        for backend_id, use in list(self._uses.items()):
            became_quiet = use.touched and use.open == 0 and not use.touched_lately
            in_use = use.open > 0 or use.touched
            if became_quiet or (in_use and now - use.sent_at >= HEARTBEAT_INTERVAL_S):
                due.append(backend_id)
                use.sent_at = now
                use.touched = False
            elif not in_use and not use.touched_lately:
                del self._uses[backend_id]
            use.touched_lately = False
        return due

    def in_use(self) -> list[str]:
        """All backends not forgotten, for a new connection to a controller."""
        return list(self._uses)
