"""When does a node try again after a connection ended or could not be made?

Decides only the wait; `plane.transport.node_socket` sleeps. Rule: page 1, "Rules that hold everywhere".
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.timing import BACKOFF_CAP_S, BACKOFF_FACTOR, BACKOFF_FIRST_S, BACKOFF_HEALTHY_AFTER_S

__all__ = ["ReconnectBackoff"]


@dataclass(slots=True)
class ReconnectBackoff:
    """Capped exponential backoff that starts over after a minute of health. Times in seconds, monotonic."""

    _next_wait_s: float = BACKOFF_FIRST_S
    _connected_at: float | None = None

    def connected(self, now: float) -> None:
        """A connection was made."""
        self._connected_at = now

    def ended(self, now: float, *, asked_for: bool = False) -> float:
        """A connection ended or was not made: how long to wait before the next attempt.

        ``asked_for``: either side ended it in good order (a stopping controller, the hourly
        reconnect). Then the next attempt is made at once, but only after a connection that had
        lasted a second, so that a controller that greets and closes is not hammered.
        """
        lasted_s = 0.0 if self._connected_at is None else now - self._connected_at
        self._connected_at = None
        if lasted_s >= BACKOFF_HEALTHY_AFTER_S:
            self._next_wait_s = BACKOFF_FIRST_S
        if asked_for and lasted_s >= BACKOFF_FIRST_S:
            return 0.0
        wait_s = self._next_wait_s
        self._next_wait_s = min(wait_s * BACKOFF_FACTOR, BACKOFF_CAP_S)
        return wait_s
