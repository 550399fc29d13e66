"""Warnings that a peer can cause as often as it likes, logged at most once a minute with their count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from structlog.typing import FilteringBoundLogger

from plane.timing import WARNING_INTERVAL_S

__all__ = ["NAMES_LIMIT", "ThrottledWarning", "ThrottledWarnings"]

# Names that get a line of their own within a minute. The peer that causes the warnings may choose the names too.
NAMES_LIMIT = 100


class ThrottledWarning:
    """One warning: the first is logged at once, later ones at most once a minute with their ``count``.

    Args:
        log: the logger to warn with.
        event: the message.
        fields: logged with it each time.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, log: FilteringBoundLogger, event: str, *, clock: Callable[[], float] = time.monotonic, **fields: Any
    ) -> None:
        self._log = log
        self._event = event
        self._fields = fields
        self._clock = clock
        self._logged_at: float | None = None
        self._suppressed = 0
        self._latest: dict[str, Any] = {}

    def warn(self, **fields: Any) -> None:
        """Log the warning, or only count it. ``fields`` belong to this occurrence."""
        self._suppressed += 1
        self._latest = fields
        if not self.is_throttled:
            self._write()

    @property
    def is_throttled(self) -> bool:
        """Whether it was logged within the last minute, so that the next one is only counted."""
        return self._logged_at is not None and self._clock() - self._logged_at < WARNING_INTERVAL_S

    def end(self) -> None:
        """Log what was only counted so far. Called when the warning cannot occur any more."""
        if self._suppressed:
            self._write()

    def _write(self) -> None:
        self._log.warning(self._event, **self._fields, **self._latest, count=self._suppressed)
        self._logged_at = self._clock()
        self._suppressed = 0


class ThrottledWarnings:
    """One warning for each of many names. The lines of a minute are bounded, however many names there are.

    Args:
        log: the logger to warn with.
        event: the message.
        names_limit: further names of the same minute share one line with ``many_names``.
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
        self._warnings: dict[str, ThrottledWarning] = {}
        self._others = ThrottledWarning(log, event, clock=clock, many_names=True)

    def warn(self, name: str, **fields: Any) -> None:
        """Log or count the warning for ``name``. The name is logged only if it is among ``fields``."""
        known = self._warnings.get(name)
        if known is None:
            if len(self._warnings) >= self._names_limit:
                self._warnings = {name: kept for name, kept in self._warnings.items() if kept.is_throttled}
            if len(self._warnings) >= self._names_limit:
                self._others.warn(**fields)
                return
            known = self._warnings[name] = ThrottledWarning(self._log, self._event, clock=self._clock)
        known.warn(**fields)
