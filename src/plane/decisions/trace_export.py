"""Are traces exported? Decided by the environment variables that OpenTelemetry defines; `plane.cli` passes them.

The SDK reads the others: sampler, name of the service, headers, batches.
"""

from __future__ import annotations

from collections.abc import Mapping

from plane.protocol.errors import ConfigurationError

__all__ = ["new_trace_ratio", "traces_are_exported"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")


def traces_are_exported(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a collector and does not switch the export off. Empty means unset.

    Raises:
        ConfigurationError: the collector's URL or its protocol cannot be used.
    """
    name = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if name is None or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    url = environ[name]
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name}={url}: must be a URL of the collector, such as http://127.0.0.1:4318")
    protocol_name = next((name for name in _PROTOCOLS if environ.get(name)), None)
    if protocol_name is not None and environ[protocol_name] != _PROTOCOL:
        raise ConfigurationError(
            f"{protocol_name}={environ[protocol_name]}: traces are exported by {_PROTOCOL} only (port 4318 of most "
            f"collectors)"
        )
    return True


def new_trace_ratio(environ: Mapping[str, str]) -> float | None:
    """Return the share of new traces that the sampler keeps, by their ids. None: it decides otherwise.

    Also None for a value that the SDK has to report.
    """
    if environ.get("OTEL_TRACES_SAMPLER", "").lower() not in _RATIO_SAMPLERS:
        return None
    try:
        ratio = float(environ.get("OTEL_TRACES_SAMPLER_ARG") or 1)
    except ValueError:
        return None
    return ratio if 0 <= ratio <= 1 else None
