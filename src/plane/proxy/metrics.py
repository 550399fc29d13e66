"""The proxy's own metrics, for Prometheus, on a port of their own: how much is open, what was answered. No tokens.

Answers are counted as they begin; all else is read when somebody asks. Run by `serving`, in each worker on the next
port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plane.protocol.errors import ConfigurationError, why_no_port
from plane.proxy.service import ProxyService

__all__ = ["serve_metrics"]


class _State(Collector):
    """What the parts of the proxy know anyway."""

    def __init__(self, service: ProxyService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        service = self._service
        answers = CounterMetricFamily(
            "plane_proxy_answers", "Answers begun, by the class of their status", labels=["status"]
        )
        for kind, count in enumerate(service.responses_begun):
            if kind >= 2:
                answers.add_metric([f"{kind}xx"], count)
        yield answers
        for name, text, value in (
            ("connections", "Connections of clients, tunnels aside", len(service.connections)),
            ("handshakes", "TLS handshakes under way", len(service.handshakes)),
            ("tunnels", "Open tunnels", len(service.tunnels)),
            ("backend_connections", "Connections to backends, tunnels aside, free ones included", service.pool.open),
            ("open_files_limit", "As many connections of both kinds may be open", service.open_files.limit),
            ("routes", "Tokens whose way is known", service.routes.known_count),
            ("questions", "Tokens that the controller is being asked for", service.routes.question_count),
            (
                "ready",
                "1 while connected to a controller and, with TLS, in possession of a certificate",
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
                f"port {port} on {host} {why_no_port(error)}; choose another with --metrics-port"
            ) from error
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
