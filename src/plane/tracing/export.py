"""Starts and stops the export of a role's traces. Without it nothing of OpenTelemetry is imported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plane.protocol.errors import ConfigurationError
from plane.tracing.span import Tracer

__all__ = ["start_tracing"]

# For the last spans. A collector in reach takes them within milliseconds.
CLOSE_TIMEOUT_S = 2.0


@asynccontextmanager
async def start_tracing(service: str, *, enabled: bool) -> AsyncIterator[Tracer | None]:
    """Export traces while the block runs. Yields None if they are not ``enabled``.

    Args:
        service: the name of the role as a service, for example ``plane-controller``.
        enabled: see `plane.decisions.trace_export`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed, or the SDK refuses the value of a variable.
    """
    if not enabled:
        yield None
        return
    try:
        from plane.tracing.sdk import SdkTracer, report_sdk_warnings
    except ImportError as error:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: install plane-orchestrator[otel], "
            "or unset the variable"
        ) from error
    report_sdk_warnings()
    try:
        tracer = SdkTracer(service)
    except ValueError as error:
        raise ConfigurationError(f"a variable OTEL_… has an unusable value: {error}") from error
    try:
        yield tracer
    finally:
        await tracer.close(CLOSE_TIMEOUT_S)
