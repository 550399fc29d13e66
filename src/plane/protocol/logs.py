"""A backend's output in pages of lines, which controllers request from drones (extension "logs").

Each request has one response; a follower requests the next page after its last line. A slow reader therefore delays
only itself, and neither side keeps state between requests.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol.codec import Int64

__all__ = ["MAX_PAGE_BYTES", "LogLine", "LogPage", "LogsRead", "ReadLogs"]

# Of one response as JSON: with its envelope it must fit into a PostgreSQL notification of 8,000 bytes.
MAX_PAGE_BYTES = 7_000


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of output. ``time_ns`` is since the Unix epoch, by the drone's machine, and rises with each line."""

    time_ns: Int64
    text: str


class LogPage(msgspec.Struct, frozen=True):
    """Lines in order. ``ended``: the backend has ended, and these are its last lines."""

    lines: list[LogLine]
    ended: bool


class ReadLogs(msgspec.Struct, frozen=True):
    """Requests a page of a backend's output from a drone.

    ``after``: the ``time_ns`` of the last known line. Without it the page has the last ``tail`` lines; without either
        it
    starts with the first line. ``wait_ms``: how long to wait for a line if there is none.
    """

    request_id: str
    backend_id: str
    after: Int64 | None = None
    tail: Int64 | None = None
    wait_ms: Int64 = 0


class LogsRead(msgspec.Struct, frozen=True):
    """The response. ``error`` is set if the output cannot be read."""

    request_id: str
    page: LogPage
    error: str | UnsetType = UNSET
