"""Measure containers: one sample each of the engine's statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from plane.decisions.backends.resource_usage import CpuCounter, container_metrics
from plane.protocol.names import container_name
from plane.runtime.base import MetricsCallback
from plane.runtime.docker.engine import DockerEngine, EngineRefused

__all__ = ["measure_containers"]

# Containers that are measured at the same time.
CONCURRENCY = 8


async def measure_containers(
    engine: DockerEngine, containers: Mapping[str, CpuCounter], on_metrics: MetricsCallback
) -> None:
    """Request one sample for each backend in ``containers`` and report its metrics.

    Raises:
        BackendFailed: the engine does not respond.
    """
    waiting = iter(list(containers.items()))

    async def measure_some() -> None:
        for backend_id, counter in waiting:
            params = {"stream": "false", "one-shot": "true"}
            path = f"containers/{container_name(backend_id)}/stats"
            try:
                sample = await engine.call("measure the container", "GET", path, params=params)
            except EngineRefused:
                # It has just ended.
                continue
            metrics = container_metrics(backend_id, sample or {}, counter)
            if metrics is not None:
                on_metrics(metrics)

    results = await asyncio.gather(*(measure_some() for _ in range(CONCURRENCY)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
