"""Spans of the OpenTelemetry SDK, exported by OTLP over HTTP. Only `plane.tracing.export` imports this.

The SDK's thread exports; its queue is bounded and drops spans when it is full (`OTEL_BSP_MAX_QUEUE_SIZE`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from plane.decisions.trace_context import TraceContext, parse_traceparent
from plane.decisions.trace_export import new_trace_ratio
from plane.throttled_log import ThrottledWarning
from plane.tracing.span import Kind
from plane.version import this_version

__all__ = ["SdkTracer", "report_sdk_warnings"]

_LOGGER = "opentelemetry"
_PARSER = "opentelemetry.util"
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}
# Neither a context variable nor a span of the process's own is the parent of a span.
_EMPTY = Context()

log = structlog.get_logger("plane.tracing")


class _TraceIds(RandomIdGenerator):
    """Gives the next trace the id for which the sampler decided."""

    def __init__(self) -> None:
        self.next_id = 0

    def new_id(self) -> int:
        """Return a random id."""
        return super().generate_trace_id()

    def generate_trace_id(self) -> int:
        return self.next_id


class SdkTracer:
    """The tracer of one role. See `plane.tracing.span.Tracer`.

    Args:
        service: its name as a service, unless the environment has another one.
    """

    def __init__(self, service: str) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._ids = _TraceIds()
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._sampler = self._provider.sampler
        ratio = new_trace_ratio(os.environ)
        # Where the ids of new traces begin that the sampler drops. Calling the sampler takes 1.3 us, this test 0.1 us.
        self._dropped_from = None if ratio is None else TraceIdRatioBased.get_bound_for_rate(ratio)
        self._tracer = self._provider.get_tracer("plane", this_version().version)
        # The thread of the processor starts here.
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def start(self, name: str, kind: Kind, traceparent: str | None) -> SdkSpan | None:
        remote = parse_traceparent(traceparent)
        if remote is None:
            parent, trace_id = None, self._ids.new_id()
            if self._dropped_from is not None and trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._dropped_from:
                return None
        else:
            parent, trace_id = _as_parent(remote), remote.trace_id
        self._ids.next_id = trace_id
        # Queried before the span is made: a span that is dropped at once takes 6 us, the sampler 1 us.
        if self._sampler.should_sample(parent, trace_id, name, _KINDS[kind]).decision is Decision.DROP:
            return None
        return self.span(name, kind, parent or _EMPTY)

    def span(self, name: str, kind: Kind, parent: Context) -> SdkSpan | None:
        """Begin a span below ``parent``; None if it is not sampled."""
        span = self._tracer.start_span(name, context=parent, kind=_KINDS[kind])
        return SdkSpan(self, span) if span.is_recording() else None

    async def close(self, timeout_s: float) -> None:
        """Export what is queued for up to ``timeout_s``. A collector that does not respond holds up nothing more."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            # A loop that has ended meanwhile does not wait any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(closed.set)

        # A daemon, which does not keep the process from its end.
        threading.Thread(target=shut_down, name="trace export", daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s):
                await closed.wait()
        except TimeoutError:
            log.warning("last traces not exported", timeout_s=timeout_s)


class SdkSpan:
    """A sampled span. See `plane.tracing.span.Span`."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: SdkTracer, span: OtelSpan) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return str(TraceContext(context.trace_id, context.span_id, context.trace_flags.sampled))

    def child(self, name: str, kind: Kind = Kind.INTERNAL) -> SdkSpan | None:
        return self._tracer.span(name, kind, set_span_in_context(self._span, _EMPTY))

    def set(self, name: str, value: str | int | bool) -> None:
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, reason))

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


def _as_parent(remote: TraceContext) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if remote.sampled else TraceFlags.DEFAULT)
    context = SpanContext(remote.trace_id, remote.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), _EMPTY)


class _SdkWarnings(logging.Handler):
    """Logs what the SDK reports, at most once a minute: a collector that is down fails with every batch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._warning = ThrottledWarning(log, "problem exporting traces")

    def emit(self, record: logging.LogRecord) -> None:
        # The parser of variables logs what it does not understand of header fields, which may be a key.
        reason = str(record.msg) if record.name.startswith(_PARSER) else record.getMessage()
        self._warning.warn(reason=reason)


def report_sdk_warnings() -> None:
    """Have the SDK's warnings logged once a minute instead of each. Several tracers of a process share that."""
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(handler, _SdkWarnings) for handler in logger.handlers):
        logger.addHandler(_SdkWarnings())
        logger.propagate = False
