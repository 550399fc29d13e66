"""Metrics of the proxy for Prometheus, on a port of their own. No label has a token or a backend.

Responses are counted as they begin; all other values are read at a scrape. `listeners.serving` runs it, in each worker
on the next port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plane.os_errors import port_error_reason
from plane.protocol.errors import ConfigurationError
from plane.proxy.service import ProxyService

__all__ = ["serve_metrics"]


class _State(Collector):
    """Collects the metrics from the parts of the proxy."""

    def __init__(self, service: ProxyService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        service = self._service
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
    """Serve ``/metrics`` until cancelled.

    Raises:
        ConfigurationError: the port cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(_State(service))

    async def metrics(_: web.Request) -> web.Response:
        text = generate_latest(registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(
                f"port {port} on {host} {port_error_reason(error)}; choose another with --metrics-port"
            ) from error
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
