"""Bounds the open connections by the limit of open files. Further connections are refused at once.

So open connections continue, and a new one does not fail half way because no file is left. `service` checks it.
"""

from __future__ import annotations

import structlog

from plane.fd_limit import raise_fd_limit

__all__ = ["PER_CONNECTION", "FdBudget"]

# Files for the connection to the controller, logs, certificate files, and connections that are about to be refused.
RESERVED = 64
# The files of a client and its backend.
PER_CONNECTION = 2
LOG_INTERVAL_S = 10.0

log = structlog.get_logger("plane.proxy")


class FdBudget:
    """The limit, raised to what the system allows this process."""

    def __init__(self) -> None:
        self.limit = max(raise_fd_limit() - RESERVED, PER_CONNECTION)
        self._logged_at = float("-inf")

    def has_room(self, used: int, now: float) -> bool:
        """Return whether one more connection fits beside ``used`` files. A refusal is logged now and then."""
        if used + PER_CONNECTION <= self.limit:
            return True
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.warning("at the limit of open files; new connections are refused", limit=self.limit, used=used)
        return False
