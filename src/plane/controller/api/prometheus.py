"""The controller's own metrics at ``/metrics``, for Prometheus: requests, nodes, events and database batches.

Requests are counted as they arrive; everything else is read during a scrape. Label values are bounded by the program's
endpoints, kinds of nodes, kinds of statements and the limit of webhooks. Backends are only summed up.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from plane.controller.api.endpoints import TEXT, Endpoint, Handler
from plane.controller.context import Context
from plane.decisions.access import Role
from plane.protocol.names import NodeKind

__all__ = ["INSTRUMENTS", "PROMETHEUS_ENDPOINTS", "Instruments", "count_requests"]

# From a connect to an existing key on an idle machine to the five seconds after which a request fails.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Instruments:
    """The request metrics of one controller, and the registry of all its metrics.

    Requests are counted in plain dictionaries: a request for an existing key takes few microseconds, of which the
    library's counter and histogram would be a considerable part.
    """

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_StateCollector(context, self))
        # By method, endpoint and status.
        self.requests: dict[tuple[str, str, int], int] = defaultdict(int)
        # By endpoint.
        self.seconds: dict[str, _Seconds] = defaultdict(_Seconds)

    def count(self, method: str, endpoint: str, status: int, seconds: float | None) -> None:
        """Count a response; ``seconds`` is None for a stream or a WebSocket."""
        self.requests[method, endpoint, status] += 1
        if seconds is not None:
            self.seconds[endpoint].add(seconds)


class _Seconds:
    """Durations of requests: the number in each bucket, and the sum. The last bucket has no bound."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return each bound with the number of requests that took no longer, as Prometheus expects them."""
        return list(zip((*map(str, BUCKETS_S), "+Inf"), accumulate(self.counts), strict=True))


class _StateCollector(Collector):
    """Collects the state of the controller's parts."""

    def __init__(self, context: Context, instruments: Instruments) -> None:
        self._context = context
        self._instruments = instruments

    def describe(self) -> list[Metric]:
        """Return nothing: otherwise the registry would collect while the controller starts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        context = self._context
        requests = CounterMetricFamily("plane_http_requests", "Responses sent", labels=["method", "endpoint", "status"])
        for (method, endpoint, status), count in self._instruments.requests.items():
            requests.add_metric([method, endpoint, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "plane_http_request_seconds",
            "Time from a request's head to the end of its response; streams and WebSockets are not counted",
            labels=["endpoint"],
        )
        for endpoint, taken in self._instruments.seconds.items():
            seconds.add_metric([endpoint], taken.cumulative(), taken.total_s)
        yield seconds
        nodes = GaugeMetricFamily("plane_nodes_connected", "Nodes connected to this controller", labels=["kind"])
        for kind in NodeKind:
            nodes.add_metric([str(kind)], len(context.nodes.connected(kind)))
        yield nodes
        yield GaugeMetricFamily(
            "plane_event_bus_listening",
            "1 while this controller receives the events of others",
            value=float(context.bus.listening.is_set()),
        )
        yield CounterMetricFamily("plane_events", "Events received from the database", value=context.bus.received)
        yield GaugeMetricFamily("plane_event_subscribers", "Subscriptions to events", value=context.bus.subscribers)
        batches = CounterMetricFamily(
            "plane_database_batches", "Statements that wrote for several callers", labels=["write"]
        )
        items = CounterMetricFamily("plane_database_batched_writes", "Writes of these statements", labels=["write"])
        for name, batcher in context.statements.by_label.items():
            batches.add_metric([name], batcher.batches)
            items.add_metric([name], batcher.items)
        yield batches
        yield items
        attempts = CounterMetricFamily(
            "plane_webhook_attempts", "Messages of webhooks; delivered, or failed", labels=["webhook", "result"]
        )
        down = GaugeMetricFamily(
            "plane_webhook_receiver_down",
            "1 while a receiver is down; only of webhooks that this controller delivers",
            labels=["webhook"],
        )
        for name, counts in context.webhooks.counts().items():
            attempts.add_metric([name, "delivered"], counts.delivered)
            attempts.add_metric([name, "failed"], counts.failed)
            down.add_metric([name], float(counts.down))
        yield attempts
        yield down
        usage = context.metrics.all()
        yield GaugeMetricFamily("plane_backends_measured", "Backends with recent metrics", value=len(usage))
        yield GaugeMetricFamily(
            "plane_backends_memory_used_bytes",
            "Total memory of these backends",
            value=sum(each.mem_used for each in usage),
        )


INSTRUMENTS: web.AppKey[Instruments] = web.AppKey("instruments", Instruments)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count each request by endpoint and status, and measure the duration of those that are not streams."""
    start = time.perf_counter()
    response = await handler(request)
    seconds = time.perf_counter() - start if isinstance(response, web.Response) else None
    resource = request.match_info.route.resource
    endpoint = "none" if resource is None else resource.canonical
    request.app[INSTRUMENTS].count(request.method if resource else "any", endpoint, response.status, seconds)
    return response


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
