"""The monitoring port of a DNS server. `plane.dns.server` runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from plane.transport.monitoring import serve_monitoring

__all__ = ["serve_metrics"]


async def serve_metrics(is_connected: Callable[[], bool], host: str, port: int) -> None:
    """Serve the monitoring port until cancelled; ``is_connected`` returns whether a controller is connected.

    Raises:
        ConfigurationError: the port cannot be used.
    """

    async def collect() -> Iterable[Metric]:
        return [
            GaugeMetricFamily("plane_dns_connected", "1 while connected to a controller", value=int(is_connected()))
        ]

    def missing() -> list[str]:
        return [] if is_connected() else ["not connected to a controller"]

    await serve_monitoring(host, port, collect, missing)
