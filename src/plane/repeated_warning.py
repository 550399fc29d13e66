"""Warnings that somebody else can cause as often as they like, and which must not fill the log.

`plane.transport.node_socket` and `plane.database.notifications` say with it what they did not understand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from plane.timing import WARNING_INTERVAL_S

__all__ = ["RepeatedWarning"]


class RepeatedWarning:
    """One such warning: the first is logged at once, later ones at most once a minute, with their ``count``.

    Args:
        log: the logger of whoever warns.
        event: the message.
        facts: what is logged with it each time.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, log: FilteringBoundLogger, event: str, *, clock: Callable[[], float] = time.monotonic, **facts: Any
    ) -> None:
        self._log = log
        self._event = event
        self._facts = facts
        self._clock = clock
        self._logged_at: float | None = None
        self._unsaid = 0
        self._latest: dict[str, Any] = {}

    def warn(self, **facts: Any) -> None:
        """It happened. ``facts`` are of this time only."""
        self._unsaid += 1
        self._latest = facts
        if self._logged_at is None or self._clock() - self._logged_at >= WARNING_INTERVAL_S:
            self._say()

    def end(self) -> None:
        """It will not happen any more: what was not said yet is."""
        if self._unsaid:
            self._say()

    def _say(self) -> None:
        self._log.warning(self._event, **self._facts, **self._latest, count=self._unsaid)
        self._logged_at = self._clock()
        self._unsaid = 0
