"""The controller's own metrics, for Prometheus at ``/metrics``: what it serves, and how it gets on with the database.

Requests are counted as they come; all else is read when somebody asks. No label has more values than the program has
endpoints, kinds and writes; backends are only summed up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plane.controller.context import Context
from plane.controller.endpoints import TEXT, Endpoint, Handler
from plane.decisions.access import Role
from plane.protocol.names import NodeKind

__all__ = ["INSTRUMENTS", "PROMETHEUS_ENDPOINTS", "Instruments", "count_requests"]

# From an existing key on an idle machine to the five seconds after which a request has failed.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Instruments:
    """The counters of one controller, and what is read when they are asked for."""

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "plane_http_requests", "Requests answered", ["method", "endpoint", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "plane_http_request_seconds",
            "From a request's head to the end of its answer; streams and sockets are not counted",
            ["endpoint"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_State(context))
        # Finding a counter by its labels takes longer than counting.
        self._requests_of = cache(self.requests.labels)
        self._seconds_of = cache(self.seconds.labels)

    def count(self, method: str, endpoint: str, status: int, seconds: float | None) -> None:
        """A request has been answered; ``seconds`` is None for a stream or socket."""
        self._requests_of(method, endpoint, status).inc()
        if seconds is not None:
            self._seconds_of(endpoint).observe(seconds)


class _State(Collector):
    """What the parts of the controller know anyway."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def describe(self) -> list[Metric]:
        """Nothing: else it would be collected while the controller starts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        context = self._context
        nodes = GaugeMetricFamily("plane_nodes_connected", "Nodes connected to this controller", labels=["kind"])
        for kind in NodeKind:
            nodes.add_metric([str(kind)], len(context.sockets.nodes_of(kind)))
        yield nodes
        yield GaugeMetricFamily(
            "plane_event_bus_listening",
            "1 while this controller hears of what others write",
            value=float(context.bus.listening.is_set()),
        )
        yield CounterMetricFamily("plane_events", "Events heard from the database", value=context.bus.heard)
        yield GaugeMetricFamily(
            "plane_event_subscribers", "Sockets and streams that hear them", value=context.bus.subscribers
        )
        batches = CounterMetricFamily(
            "plane_database_batches", "Statements that wrote several at once", labels=["write"]
        )
        items = CounterMetricFamily("plane_database_batched_writes", "What they wrote", labels=["write"])
        for name, batcher in context.writes.all().items():
            batches.add_metric([name], batcher.batches)
            items.add_metric([name], batcher.items)
        yield batches
        yield items
        usage = context.metrics.all()
        yield GaugeMetricFamily("plane_backends_measured", "Backends with recent metrics", value=len(usage))
        yield GaugeMetricFamily(
            "plane_backends_memory_used_bytes", "Memory of those, summed up", value=sum(each.mem_used for each in usage)
        )


INSTRUMENTS: web.AppKey[Instruments] = web.AppKey("instruments", Instruments)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count each request by endpoint and status, and time those that have an end."""
    start = time.perf_counter()
    answer = await handler(request)
    seconds = time.perf_counter() - start if isinstance(answer, web.Response) else None
    resource = request.match_info.route.resource
    endpoint = "none" if resource is None else resource.canonical
    request.app[INSTRUMENTS].count(request.method if resource else "any", endpoint, answer.status, seconds)
    return answer


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(request.app[INSTRUMENTS].registry),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


PROMETHEUS_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/metrics",
        handle=_metrics,
        summary="This controller's own metrics, for Prometheus",
        role=Role.READ,
        media=TEXT,
    ),
)
