"""Which lines belong to a reading of output that is not followed, and when does it end? Pure.

A backend may write faster than its output is read. So a reading ends at the newest line that there was when it began.
`plane.controller.api.logs` reads page by page.
"""

from __future__ import annotations

from plane.protocol.logs import LogLine

__all__ = ["BoundedLogRead"]


class BoundedLogRead:
    """One reading.

    Args:
        tail: how many lines are wanted at most; None: all.

    Attributes:
        end_ns: time of the newest line that belongs to it; None: not known yet, only for the first page.
        has_ended: no further page is to be read.
    """

    def __init__(self, tail: int | None) -> None:
        self.end_ns: int | None = None
        self.has_ended = False
        self._left = tail

    def take(self, lines: list[LogLine]) -> list[LogLine]:
        """Return those of a page's lines, in order of their times, that belong to it."""
        end_ns = self.end_ns
        taken = lines if end_ns is None else [line for line in lines if line.time_ns <= end_ns]
        if self._left is not None:
            taken = taken[: self._left]
            self._left -= len(taken)
        reaches_end = end_ns is not None and bool(lines) and lines[-1].time_ns >= end_ns
        self.has_ended = not lines or self._left == 0 or reaches_end
        return taken
