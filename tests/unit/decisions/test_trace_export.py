"""Which environment variables switch the export of traces on, and which mistakes are found at the start."""

from __future__ import annotations

import pytest

from plane.decisions.trace_export import new_trace_ratio, traces_are_exported
from plane.protocol.errors import ConfigurationError

ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({ENDPOINT: URL}, True),
        ({TRACES_ENDPOINT: "https://collector.example.com/v1/traces"}, True),
        ({ENDPOINT: URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "false"}, True),
        # The protocol of traces has precedence over that of all signals.
        (
            {
                ENDPOINT: URL,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            True,
        ),
    ],
)
def test_a_collector_switches_the_export_on(environ: dict[str, str], expected: bool) -> None:
    assert traces_are_exported(environ) is expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({ENDPOINT: "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318: must be a URL"),
        ({ENDPOINT: URL, TRACES_ENDPOINT: "collector"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector: must be a URL"),
        ({ENDPOINT: URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: .* http/protobuf"),
    ],
)
def test_mistakes_are_explained(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        traces_are_exported(environ)


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        (None, "0.5", None),
        ("parentbased_always_on", "0.5", None),
        ("always_off", None, None),
        ("traceidratio", "0.5", 0.5),
        ("ParentBased_TraceIdRatio", "0", 0.0),
        ("parentbased_traceidratio", None, 1.0),
        ("parentbased_traceidratio", "half", None),
        ("parentbased_traceidratio", "1.5", None),
        ("parentbased_traceidratio", "nan", None),
    ],
)
def test_ratio_of_new_traces(sampler: str | None, argument: str | None, ratio: float | None) -> None:
    given = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert new_trace_ratio({name: value for name, value in given.items() if value is not None}) == ratio
