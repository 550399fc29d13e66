"""Which connection without a request is closed, so that such connections never use up a server's files?

`plane.controller.api.request_deadlines` reports events, and closes the connections that are returned. Silent
connections cost a client nothing, so there is a limit per source and one for all. The oldest one is closed, since a
client that has a request sends it soon.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["UnprovenConnections", "unproven_limit"]

T = TypeVar("T")

# More would not help clients with requests, which send them when they connect.
MOST: Final = 1_024
# The divisor of all open files. The rest is for requests, nodes and the database.
SHARE_OF_FILES: Final = 4
# The divisor of all such connections, for one source.
SHARE_OF_SOURCE: Final = 4


def unproven_limit(open_files: int) -> int:
    """Return how many connections may wait for their first request, given the limit of ``open_files``."""
    return max(1, min(MOST, open_files // SHARE_OF_FILES))


class UnprovenConnections(Generic[T]):
    """The connections that have not sent a complete request head, oldest first."""

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
        """Add a connection of ``source``. Return the one to close, if there are too many."""
        self._source_of[connection] = source
        of_this_source = self._of_source.setdefault(source, OrderedDict())
        of_this_source[connection] = None
        if len(of_this_source) > self._limit_of_source:
            return next(iter(of_this_source))
        return next(iter(self._source_of)) if len(self._source_of) > self._limit else None

    def remove(self, connection: T) -> None:
        """Remove a connection that has sent a complete request head, or has ended."""
        source = self._source_of.pop(connection, None)
        if source is not None:
            of_this_source = self._of_source[source]
            del of_this_source[connection]
            if not of_this_source:
                del self._of_source[source]
