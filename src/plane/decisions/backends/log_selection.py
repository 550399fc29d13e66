"""Decide which lines belong to a read of a backend's output that does not follow it. Pure.

A backend may write faster than its output is read. So a read ends at the line that was the newest when it began.
`plane.controller.api.logs` reads page by page.
"""

from __future__ import annotations

from plane.protocol.logs import LogLine

__all__ = ["BoundedLogRead"]


class BoundedLogRead:
    """One read.

    Args:
        tail: the maximal number of lines; None: all.

    Attributes:
        end_ns: time of the last line that belongs to the read; None: not known yet, only for the first page.
        has_ended: whether no further page is to be read.
    """

    def __init__(self, tail: int | None) -> None:
        self.end_ns: int | None = None
        self.has_ended = False
        self._left = tail

    def select(self, lines: list[LogLine]) -> list[LogLine]:
        """Return the lines of a page that belong to the read. ``lines`` are ordered by time."""
        end_ns = self.end_ns
        selected = lines if end_ns is None else [line for line in lines if line.time_ns <= end_ns]
        if self._left is not None:
            selected = selected[: self._left]
            self._left -= len(selected)
        reaches_end = end_ns is not None and bool(lines) and lines[-1].time_ns >= end_ns
        self.has_ended = not lines or self._left == 0 or reaches_end
        return selected
