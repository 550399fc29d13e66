"""Are traces exported? Decided by the environment variables that OpenTelemetry defines; `plane.cli` passes them.

The SDK reads the others: sampler, name of the service, headers, batches.
"""

from __future__ import annotations

from collections.abc import Mapping

from plane.protocol.errors import ConfigurationError

__all__ = ["traces_are_exported"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


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
