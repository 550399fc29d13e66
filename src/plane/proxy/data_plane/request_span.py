"""The span of a request: it continues the trace of the client, and the backend's spans continue it.

The URL is not an attribute, because a token is in it, which a reader of traces could use.
"""

from __future__ import annotations

from dataclasses import replace

from plane.decisions.http.request_head import RequestHead
from plane.decisions.trace_context import replace_traceparent, traceparent_field
from plane.tracing.span import Kind, Span, Tracer

__all__ = ["begin_span", "response_begins"]


def begin_span(tracer: Tracer, head: RequestHead) -> Span | None:
    """Begin the span of a request, and have the backend get it as the parent of its own.

    A request that is not sampled is passed on as it is.
    """
    lines = head.fields.lines
    span = tracer.start("request", Kind.SERVER, traceparent_field(lines))
    if span is not None:
        span.set("http.request.method", head.method.decode())
        head.fields = replace(head.fields, lines=replace_traceparent(lines, span.traceparent))
    return span


def response_begins(span: Span, status: int) -> None:
    """Record the status of the response."""
    span.set("http.response.status_code", status)
    if status >= 500:
        span.fail(f"status {status}")
