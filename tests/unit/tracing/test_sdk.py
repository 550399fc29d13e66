"""Spans of the SDK: whose child they are, which are sampled, and that a collector cannot hold up the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from harness.otlp_collector import Collector, otlp_collector
from plane.tracing.export import start_tracing
from plane.tracing.span import Kind, Tracer, child

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE_ID}-{PARENT_ID}-0{flag}" for flag in (1, 0))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with otlp_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@pytest.fixture
async def tracer(collector: Collector) -> AsyncIterator[Tracer]:
    async with start_tracing("plane-test", enabled=True) as started:
        assert started is not None
        yield started


async def test_spans_are_exported_at_the_end(collector: Collector) -> None:
    async with start_tracing("plane-test", enabled=True) as tracer:
        assert tracer is not None
        span = tracer.start("request", Kind.SERVER, SAMPLED)
        assert span is not None
        with pytest.raises(ZeroDivisionError), child(span, "step"):
            raise ZeroDivisionError("text of another library")
        span.end()
        span.end()
    assert [(s.name, s.trace_id, s.parent_id, s.failed) for s in collector.spans] == [
        ("step", TRACE_ID, span.traceparent.split("-")[2], True),
        ("request", TRACE_ID, PARENT_ID, False),
    ]


@pytest.mark.parametrize(
    ("sampler", "argument", "of_none", "of_unsampled"),
    [
        ("", "", True, False),
        ("always_on", "", True, True),
        ("parentbased_traceidratio", "0", False, False),
        ("parentbased_traceidratio", "1", True, False),
    ],
)
async def test_sampler_decides(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    argument: str,
    of_none: bool,
    of_unsampled: bool,
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    async with start_tracing("plane-test", enabled=True) as tracer:
        assert tracer is not None
        for traceparent in (None, "nonsense"):
            assert (tracer.start("request", Kind.SERVER, traceparent) is not None) is of_none
        assert (tracer.start("request", Kind.SERVER, UNSAMPLED) is not None) is of_unsampled


async def test_ratio_is_that_of_the_traces(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    async with start_tracing("plane-test", enabled=True) as tracer:
        assert tracer is not None
        spans = [span for _ in range(400) if (span := tracer.start("request", Kind.SERVER, None)) is not None]
        assert 50 < len(spans) < 150
        assert len({span.traceparent.split("-")[1] for span in spans}) == len(spans), "each its own trace"
        # The sampler that was asked, and that of the span, see the same id.
        assert all(int(span.traceparent.split("-")[1], 16) & (2**64 - 1) < 2**62 for span in spans)


async def test_sibling_roots_do_not_share_a_trace(tracer: Tracer) -> None:
    first, second = (tracer.start("request", Kind.SERVER, None) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.traceparent.split("-")[1] != second.traceparent.split("-")[1]
    below = first.child("step")
    assert below is not None
    assert below.traceparent.split("-")[1] == first.traceparent.split("-")[1]


async def test_collector_that_hangs_does_not_hold_up_the_end(collector: Collector) -> None:
    collector.hangs = threading.Event()
    async with asyncio.timeout(8):
        async with start_tracing("plane-test", enabled=True) as tracer:
            assert tracer is not None
            span = tracer.start("request", Kind.SERVER, None)
            assert span is not None
            span.end()


async def test_nothing_is_started_without_a_collector() -> None:
    async with start_tracing("plane-test", enabled=False) as tracer:
        assert tracer is None
        with child(None, "step") as step:
            assert step is None
