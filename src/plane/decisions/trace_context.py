"""Which trace does a request belong to? Reads and writes `traceparent`, of W3C Trace Context level 1.

Called by `plane.tracing` and, for the heads of requests, by `plane.proxy.data_plane.request_trace`. A malformed value
is ignored, with `tracestate` (section 3.2 of the recommendation): a client must not be able to break a request by it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["TraceContext", "parse_traceparent", "replace_traceparent", "traceparent_field"]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_SAMPLED = 1
_FIELD = re.compile(rb"\r\n(?i:traceparent):[ \t]*([^\r\n]*)")
_STATE_FIELD = re.compile(rb"\r\n(?i:tracestate):[^\r\n]*")


class TraceContext(NamedTuple):
    """A span of any process, as the parent of others."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Return the parent that ``text`` names; None if it is absent or malformed.

    A later version may have more parts after those that are known here.
    """
    match = None if text is None else _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return context if context.trace_id and context.span_id else None


def traceparent_field(lines: bytes) -> str | None:
    """Return the value of `traceparent` in field lines, each begun by CR LF; None if there is not exactly one."""
    values = _FIELD.findall(lines)
    return values[0].rstrip(b" \t").decode("latin-1") if len(values) == 1 else None


def replace_traceparent(lines: bytes, traceparent: str) -> bytes:
    """Return field lines with this `traceparent`. `tracestate` is kept if it belongs to a valid former one."""
    if parse_traceparent(traceparent_field(lines)) is None:
        lines = _STATE_FIELD.sub(b"", lines)
    return _FIELD.sub(b"", lines) + b"\r\ntraceparent: " + traceparent.encode()
