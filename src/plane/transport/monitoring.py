"""The monitoring port of a node: ``/metrics`` for Prometheus, ``/livez`` and ``/readyz`` for probes.

``/livez`` responds while the program's event loop runs, and depends on nothing else: restarting a program does not
repair another one. ``/readyz`` responds with 503 and what is missing. Controllers serve the same paths at their own
port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plane.transport.port_errors import port_error

__all__ = ["serve_monitoring"]

# Of collecting the metrics and what is missing. Prometheus waits for ten seconds by default, the kubelet for one.
COLLECT_TIMEOUT_S = 5.0

Collect = Callable[[], Awaitable[Iterable[Metric]]]
Missing = Callable[[], Iterable[str]]


class _Collected(Collector):
    """Metrics that were collected before the scrape is rendered."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._metrics


async def serve_monitoring(host: str, port: int, collect: Collect, missing: Missing) -> None:
    """Serve the monitoring port until cancelled.

    Args:
        host: to listen on.
        port: to listen on.
        collect: returns the current metrics.
        missing: returns what is missing before this program can do its work, in words.

    Raises:
        ConfigurationError: the port cannot be used.
    """

    async def metrics(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(COLLECT_TIMEOUT_S):
                collected = await collect()
        except TimeoutError:
            return _text(f"the metrics were not collected within {COLLECT_TIMEOUT_S:g} s", 503)
        registry = CollectorRegistry()
        registry.register(_Collected(collected))
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def live(_: web.Request) -> web.Response:
        return _text("ok")

    async def ready(_: web.Request) -> web.Response:
        reasons = ", ".join(sorted(missing()))
        return _text(reasons, 503) if reasons else _text("ok")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", live), web.get("/readyz", ready)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise port_error(error, host, port, "--metrics-port") from error
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=f"{text}\n", status=status, headers={"Cache-Control": "no-store"})
