"""Which messages of several workers does the controller need? The workers are one proxy to it.

It gets one lookup per token, however many workers request it. Of the keepalives of a backend it gets at most one per
second, but always the last one, so that a backend's idle time begins when its last worker stopped to use it.
`plane.proxy.processes.workers` sends the messages.
"""

from __future__ import annotations

from typing import Final

from plane.decisions.routing.pending_lookups import RESEND_INTERVAL_S

__all__ = ["COALESCED_S", "FORGOTTEN_AFTER_S", "KEEPALIVE_INTERVAL_S", "WorkerCoalescing"]

# For how long a lookup without a response stands for those of all workers. It ends just before a worker sends its own
# again, so the controller gets one per interval, however many workers wait.
COALESCED_S: Final = RESEND_INTERVAL_S - 1.0
KEEPALIVE_INTERVAL_S: Final = 1.0
FORGOTTEN_AFTER_S: Final = 60.0


class WorkerCoalescing:
    """The lookups and keepalives of all workers. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._looked_up_at: dict[str, float] = {}
        self._kept_alive_at: dict[str, float] = {}
        # Backends whose last keepalive was withheld.
        self._withheld: set[str] = set()

    def lookup(self, token: str, now: float) -> bool:
        """Return whether to send a worker's lookup. If not, one is pending, and its response is for all workers."""
        looked_up_at = self._looked_up_at.get(token)
        if looked_up_at is not None and now - looked_up_at < COALESCED_S:
            return False
        self._looked_up_at.pop(token, None)
        self._looked_up_at[token] = now
        return True

    def resolved(self, token: str) -> None:
        """Handle the controller's response."""
        self._looked_up_at.pop(token, None)

    def disconnected(self) -> None:
        """Handle the end of the connection: pending lookups are lost."""
        self._looked_up_at.clear()

    def keep_alive(self, backend_id: str, now: float) -> bool:
        """Return whether to send a worker's keepalive now. If not, `poll` returns the backend later."""
        kept_alive_at = self._kept_alive_at.get(backend_id)
        if kept_alive_at is not None and now - kept_alive_at < KEEPALIVE_INTERVAL_S:
            self._withheld.add(backend_id)
            return False
        self._kept_alive_at[backend_id] = now
        self._withheld.discard(backend_id)
        return True

    def poll(self, now: float) -> list[str]:
        """Return the backends to keep alive now, and forget what is old. To be called each interval."""
        due = [
            backend_id for backend_id in self._withheld if now - self._kept_alive_at[backend_id] >= KEEPALIVE_INTERVAL_S
        ]
        for backend_id in due:
            self._withheld.discard(backend_id)
            self._kept_alive_at[backend_id] = now
        for backend_id in [b for b, at in self._kept_alive_at.items() if now - at >= FORGOTTEN_AFTER_S]:
            del self._kept_alive_at[backend_id]
        for token in [t for t, at in self._looked_up_at.items() if now - at >= FORGOTTEN_AFTER_S]:
            del self._looked_up_at[token]
        return due
