"""Which connection that has sent no request yet is closed, so that such ones never use up a server's files?

`plane.controller.api.request_deadlines` tells it what happens and closes what it names. Silent connections cost their
owner nothing, so there is a bound for each source and one for all; the oldest goes, since who has a request sends it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["UnprovenConnections", "unproven_limit"]

T = TypeVar("T")

# More are no help to anybody who has requests: those come with the connection.
MOST = 1_024
# Of all open files, so that requests, nodes and the database have the rest.
SHARE_OF_FILES = 4
# Of all of them, for one source.
SHARE_OF_SOURCE = 4


def unproven_limit(open_files: int) -> int:
    """How many connections may wait for their first request, with so many ``open_files``."""
    return max(1, min(MOST, open_files // SHARE_OF_FILES))


class UnprovenConnections(Generic[T]):
    """The connections that have not sent a whole request head, oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._limit_of_source = max(1, limit // SHARE_OF_SOURCE)
        self._source_of: OrderedDict[T, str] = OrderedDict()
        self._of_source: dict[str, OrderedDict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._source_of)

    def __contains__(self, connection: T) -> bool:
        return connection in self._source_of

    def add(self, connection: T, source: str) -> T | None:
        """``connection`` waits for a request of ``source``. Returns the one to close for it, if there are too many."""
        self._source_of[connection] = source
        mine = self._of_source.setdefault(source, OrderedDict())
        mine[connection] = None
        if len(mine) > self._limit_of_source:
            return next(iter(mine))
        return next(iter(self._source_of)) if len(self._source_of) > self._limit else None

    def remove(self, connection: T) -> None:
        """A whole request head has come, or the connection has ended."""
        source = self._source_of.pop(connection, None)
        if source is not None:
            mine = self._of_source[source]
            del mine[connection]
            if not mine:
                del self._of_source[source]
