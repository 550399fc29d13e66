"""The controller's own metrics, for Prometheus at ``/metrics``: what it serves, and how it gets on with the database.

Requests are counted as they come; all else is read when somebody asks. No label has more values than the program has
endpoints, kinds and writes; backends are only summed up.
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

# From an existing key on an idle machine to the five seconds after which a request has failed.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Instruments:
    """The counts of one controller, and what is read when they are asked for.

    Counted by hand: a request with an existing key takes few microseconds, of which a counter object and a histogram
    would be a good part.
    """

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_State(context, self))
        # By method, endpoint and status.
        self.requests: dict[tuple[str, str, int], int] = defaultdict(int)
        # By endpoint.
        self.seconds: dict[str, _Seconds] = defaultdict(_Seconds)

    def count(self, method: str, endpoint: str, status: int, seconds: float | None) -> None:
        """A request has been answered; ``seconds`` is None for a stream or socket."""
        self.requests[method, endpoint, status] += 1
        if seconds is not None:
            self.seconds[endpoint].add(seconds)


class _Seconds:
    """How long requests took: how many in each bucket, and all together. The last bucket has no bound."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def up_to_each_bound(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: with each bound, all that took no longer."""
        return list(zip((*map(str, BUCKETS_S), "+Inf"), accumulate(self.counts), strict=True))


class _State(Collector):
    """What the parts of the controller know anyway."""

    def __init__(self, context: Context, instruments: Instruments) -> None:
        self._context = context
        self._instruments = instruments

    def describe(self) -> list[Metric]:
        """Nothing: else it would be collected while the controller starts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        context = self._context
        requests = CounterMetricFamily(
            "plane_http_requests", "Requests answered", labels=["method", "endpoint", "status"]
        )
        for (method, endpoint, status), count in self._instruments.requests.items():
            requests.add_metric([method, endpoint, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "plane_http_request_seconds",
            "From a request's head to the end of its answer; streams and sockets are not counted",
            labels=["endpoint"],
        )
        for endpoint, taken in self._instruments.seconds.items():
            seconds.add_metric([endpoint], taken.up_to_each_bound(), taken.total_s)
        yield seconds
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
