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
    for name, text, value in (
        ("connections", "Connections of clients, without tunnels", len(service.connections)),
        ("handshakes", "TLS handshakes in progress", len(service.handshakes)),
        ("tunnels", "Open tunnels", len(service.tunnels)),
        ("backend_connections", "Connections to backends, without tunnels, idle ones included", service.pool.open),
        ("open_files_limit", "Limit of open connections of both kinds", service.fd_budget.limit),
        ("routes", "Cached routes", service.routes.cached_count),
        ("questions", "Route lookups in flight", service.routes.pending_count),
        (
            "ready",
            "1 while connected to a controller and, with TLS, a certificate is loaded",
            int(not service.missing),
        ),
    ):
        yield GaugeMetricFamily(f"plane_proxy_{name}", text, value=value)


async def serve_metrics(service: ProxyService, host: str, port: int) -> None:
    """Serve the monitoring port until cancelled.

    Raises:
        ConfigurationError: the port cannot be used.
    """

    async def collect() -> Iterable[Metric]:
        return _metrics(service)

    await serve_monitoring(host, port, collect, lambda: service.missing)
