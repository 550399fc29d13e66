"""Warnings that somebody else can cause as often as they like, and which must not fill the log.

`plane.transport.node_socket` and `plane.database.event_bus` say with it what they did not understand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from plane.timing import WARNING_INTERVAL_S

__all__ = ["NAMES_LIMIT", "NamedWarnings", "RepeatedWarning"]

# Names that get a line of their own within a minute. Whoever causes the warnings may choose the names too.
NAMES_LIMIT = 100


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
        if not self.is_waiting:
            self._say()

    @property
    def is_waiting(self) -> bool:
        """Whether it was logged within the last minute, so that the next one is only counted."""
        return self._logged_at is not None and self._clock() - self._logged_at < WARNING_INTERVAL_S

    def end(self) -> None:
        """It will not happen any more: what was not said yet is."""
        if self._unsaid:
            self._say()

    def _say(self) -> None:
        self._log.warning(self._event, **self._facts, **self._latest, count=self._unsaid)
        self._logged_at = self._clock()
        self._unsaid = 0


class NamedWarnings:
    """The same for each of many names. A minute's lines are bounded, however many names there are.

    Args:
        log: the logger of whoever warns.
        event: the message.
        names_limit: names of one minute beyond it share one line, which says ``many_names``.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        event: str,
        *,
        names_limit: int = NAMES_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._event = event
        self._names_limit = names_limit
        self._clock = clock
        self._warnings: dict[str, RepeatedWarning] = {}
        self._others = RepeatedWarning(log, event, clock=clock, many_names=True)

    def warn(self, name: str, **facts: Any) -> None:
        """It happened to ``name``. ``facts`` are of this time only, and say the name if it is to be logged."""
        known = self._warnings.get(name)
        if known is None:
            if len(self._warnings) >= self._names_limit:
                self._warnings = {name: kept for name, kept in self._warnings.items() if kept.is_waiting}
            if len(self._warnings) >= self._names_limit:
                self._others.warn(**facts)
                return
            known = self._warnings[name] = RepeatedWarning(self._log, self._event, clock=self._clock)
        known.warn(**facts)
