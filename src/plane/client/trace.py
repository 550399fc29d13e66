"""The client's part of a trace: it continues that of the application, if the application has set up OpenTelemetry.

Nothing of OpenTelemetry is imported here unless the application has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from plane.decisions.trace_context import TraceContext

__all__ = ["connect_span"]


@contextmanager
def connect_span() -> Iterator[dict[str, str]]:
    """Measure the block as the span ``plane.connect``. Yields the header fields that the controller gets."""
    if "opentelemetry.trace" not in sys.modules:
        yield {}
        return
    from opentelemetry import trace

    with trace.get_tracer("plane.client").start_as_current_span("plane.connect", kind=trace.SpanKind.CLIENT) as span:
        context = span.get_span_context()
        if not context.is_valid:
            yield {}
            return
        state = context.trace_state.to_header()
        parent = str(TraceContext(context.trace_id, context.span_id, context.trace_flags.sampled))
        yield {"traceparent": parent} | ({"tracestate": state} if state else {})
