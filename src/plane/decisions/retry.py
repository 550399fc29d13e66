"""When and whether to retry: reconnections of nodes, background loops, and calls of the client.

Decides only the waits and the conditions; `plane.transport.node_socket`, `plane.database.event_bus`,
`plane.controller.upkeep.supervised_loop` and `plane.client` sleep and send.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from plane.timing import BACKOFF_CAP_S, BACKOFF_FACTOR, BACKOFF_FIRST_S, BACKOFF_HEALTHY_AFTER_S

__all__ = ["MAX_ATTEMPTS", "ReconnectBackoff", "is_transient", "may_retry", "retry_delay"]

# The first attempt and two more: enough for a controller that restarts, or for one of several behind a load balancer
# that has failed.
MAX_ATTEMPTS: Final = 3
FIRST_RETRY_DELAY_S: Final = 0.1
RETRY_FACTOR: Final = 4.0


@dataclass(slots=True)
class ReconnectBackoff:
    """Capped exponential backoff that starts over after a healthy connection. Times in seconds, monotonic.

    Attributes:
        first_s, factor, cap_s: the first wait, its growth per attempt, and the longest wait.
        healthy_after_s: the backoff starts over after a connection that lasted this long.
    """

    first_s: float = BACKOFF_FIRST_S
    factor: float = BACKOFF_FACTOR
    cap_s: float = BACKOFF_CAP_S
    healthy_after_s: float = BACKOFF_HEALTHY_AFTER_S
    _next_wait_s: float = field(init=False)
    _connected_at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._next_wait_s = self.first_s

    def connected(self, now: float) -> None:
        """Note that a connection was established."""
        self._connected_at = now

    def ended(self, now: float, *, graceful: bool = False) -> float:
        """Return the wait before the next attempt, after a connection ended or could not be established.

        Args:
            now: the monotonic clock.
            graceful: either side closed the connection on purpose (a stopping controller, the hourly reconnect). The
                next attempt is then made at once, but only if the connection had lasted for the first wait. A
                controller that greets and closes is not flooded.
        """
        lasted_s = 0.0 if self._connected_at is None else now - self._connected_at
        self._connected_at = None
        if lasted_s >= self.healthy_after_s:
            self._next_wait_s = self.first_s
        if graceful and lasted_s >= self.first_s:
            return 0.0
        wait_s = self._next_wait_s
        self._next_wait_s = min(wait_s * self.factor, self.cap_s)
        return wait_s


def may_retry(attempt: int, *, idempotent: bool, sent: bool) -> bool:
    """Return whether another attempt may follow the failed ``attempt`` (from 1).

    ``sent``: the call may have reached the controller; only an idempotent one is then sent again.
    """
    return attempt < MAX_ATTEMPTS and (idempotent or not sent)


def is_transient(http_status: int) -> bool:
    """Return whether the same call may well succeed in a moment.

    Load balancers respond with 502 to 504 while a controller restarts. A controller responds with 503 while its
    database is unavailable.
    """
    return http_status in (502, 503, 504)


def retry_delay(attempt: int, random: float) -> float:
    """Return the seconds before attempt number ``attempt`` (from 2); ``random`` from 0 to 1 spreads many callers."""
    return FIRST_RETRY_DELAY_S * float(RETRY_FACTOR ** (attempt - 2)) * (0.5 + random)
