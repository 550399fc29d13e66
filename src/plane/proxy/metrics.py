"""Metrics of the proxy for Prometheus, on a port of their own. No label has a token or a backend.

Responses are counted as they begin; all other values are read at a scrape. `listeners.serving` runs it, in each worker
on the next port.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from plane.proxy.service import ProxyService
from plane.transport.monitoring import serve_monitoring

__all__ = ["serve_metrics"]


def _metrics(service: ProxyService) -> Iterator[Metric]:
    responses = CounterMetricFamily(
        "plane_proxy_answers", "Responses begun, by the class of their status", labels=["status"]
    )
    for kind, count in enumerate(service.responses_begun):
        if kind >= 2:
            responses.add_metric([f"{kind}xx"], count)
    yield responses
    yield from (
        GaugeMetricFamily(
            "plane_proxy_connections", "Connections of clients, without tunnels", value=len(service.connections)
        ),
        GaugeMetricFamily("plane_proxy_handshakes", "TLS handshakes in progress", value=len(service.handshakes)),
        GaugeMetricFamily("plane_proxy_tunnels", "Open tunnels", value=len(service.tunnels)),
        GaugeMetricFamily(
            "plane_proxy_backend_connections",
            "Connections to backends, without tunnels, idle ones included",
            value=service.pool.open,
        ),
        GaugeMetricFamily(
            "plane_proxy_open_files_limit",
            "Limit of open connections of both kinds; near it, new ones are refused",
            value=service.fd_budget.limit,
        ),
        GaugeMetricFamily("plane_proxy_routes", "Cached routes", value=service.routes.cached_count),
        GaugeMetricFamily(
            "plane_proxy_questions",
            "Route lookups in flight; beyond 8,000 the oldest lookup gets 504",
            value=service.routes.pending_count,
        ),
        GaugeMetricFamily(
            "plane_proxy_ready",
            "1 while connected to a controller and, with TLS, a certificate is loaded",
            value=int(not service.missing),
        ),
    )


async def serve_metrics(service: ProxyService, host: str, port: int) -> None:
    """Serve the monitoring port until cancelled.

    Raises:
        ConfigurationError: the port cannot be used.
    """

    async def collect() -> Iterable[Metric]:
        return _metrics(service)

    await serve_monitoring(host, port, collect, lambda: service.missing)
