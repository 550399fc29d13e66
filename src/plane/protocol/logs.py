"""A backend's output, line by line, and how a controller asks a drone for it (extension "logs").

One question, one answer: whoever follows asks again after the last line that it has. So a slow reader slows only
itself, and neither side remembers anything in between.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol.codec import Int64

__all__ = ["PAGE_LIMIT_BYTES", "LogLine", "LogPage", "LogsRead", "ReadLogs"]

# Of one answer as JSON: it must fit into a PostgreSQL notification, 8,000 bytes with what is around it.
PAGE_LIMIT_BYTES = 7_000


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of output: ``time_ns`` since the Unix epoch by the drone's machine, rising with each line of a backend."""

    time_ns: Int64
    text: str


class LogPage(msgspec.Struct, frozen=True):
    """Some lines, in order. ``ended``: the backend has ended, and these are its last."""

    lines: list[LogLine]
    ended: bool


class ReadLogs(msgspec.Struct, frozen=True):
    """A controller asks a drone for a part of a backend's output.

    ``after``: the ``time_ns`` of the last line that is known; without it the last ``tail`` lines, without that all.
    ``wait_ms``: how long to wait for a line if there is none.
    """

    request_id: str
    backend_id: str
    after: Int64 | None = None
    tail: Int64 | None = None
    wait_ms: Int64 = 0


class LogsRead(msgspec.Struct, frozen=True):
    """The answer. ``error``, for people, where the output cannot be read."""

    request_id: str
    page: LogPage
    error: str | UnsetType = UNSET
