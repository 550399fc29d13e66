"""Traces of the real programs, as a collector receives them: one connect to the first byte is one trace."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.clusters import Cluster, dev_cluster, separate_parts, until
from harness.commands import run, run_executed
from harness.otlp_collector import Collector, ReceivedSpan, otlp_collector

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
OF_CONNECT = {"POST /ctrl/connect", "look up key", "spawn", "start backend", "check executable", "process start"}
OF_REQUEST = {"request", "look up route", "connect to backend"}
# Far above what a request takes, far below the exporter's timeout of 10 s.
UNDELAYED_S = 5.0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which the programs that the test starts export."""
    with otlp_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield running


def _connect(cluster: Cluster, traceparent: str | None, key: str = "traced") -> dict[str, Any]:
    """Connect like most clients: on a persistent connection, which has a path of its own if nothing is unusual."""
    body = {"key": {"name": key}, "spawn_config": {"executable": cluster.executable()}}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {cluster.api_key}"}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    with closing(http.client.HTTPConnection(cluster.control_urls[0].removeprefix("http://"), timeout=30)) as client:
        client.request("POST", "/ctrl/connect", json.dumps(body), headers)
        answer: dict[str, Any] = json.load(client.getresponse())
    cluster.spawned.append(answer["backend_id"])
    return answer


def _visit(url: str, traceparent: str | None, **headers: str) -> dict[str, str]:
    """The header fields that the backend got, by name in lower case."""
    if traceparent is not None:
        headers["traceparent"] = traceparent
    with urllib.request.urlopen(urllib.request.Request(url + "headers", headers=headers), timeout=30) as response:
        return {name.lower(): value for name, value in json.load(response)["facts"]["headers"]}


def _accepts_connections(port: int) -> bool:
    """Whether a worker of the proxy listens: they start after it has registered."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in spans}


def _assert_one_trace(collector: Collector, cluster: Cluster) -> None:
    until(lambda: _accepts_connections(cluster.proxy_port))
    url = _connect(cluster, TRACEPARENT)["url"]
    got = _visit(url, TRACEPARENT, tracestate="vendor=1")
    until(lambda: {span.name for span in collector.trace(TRACE_ID)} >= OF_CONNECT | OF_REQUEST)
    spans = _by_name(collector.trace(TRACE_ID))
    parents = {name: spans[name].parent_id for name in OF_CONNECT | OF_REQUEST}
    assert parents == {
        "POST /ctrl/connect": PARENT_ID,
        "look up key": spans["POST /ctrl/connect"].span_id,
        "spawn": spans["POST /ctrl/connect"].span_id,
        "start backend": spans["spawn"].span_id,
        "check executable": spans["start backend"].span_id,
        "process start": spans["start backend"].span_id,
        "request": PARENT_ID,
        "look up route": spans["request"].span_id,
        "connect to backend": spans["request"].span_id,
    }
    assert {span.service for span in spans.values()} == {"plane-controller", "plane-drone", "plane-proxy"}
    assert not any(span.failed for span in spans.values())
    assert all(span.start_ns <= span.end_ns for span in spans.values())
    assert spans["request"].attributes["http.response.status_code"] == 200
    # The backend's own spans continue that of the proxy.
    assert got["traceparent"] == f"00-{TRACE_ID}-{spans['request'].span_id}-01"
    assert got["tracestate"] == "vendor=1"
    token = url.rstrip("/").rsplit("/", 1)[1]
    assert token not in repr(collector.spans), "a token gives access to a backend"


def test_connect_and_first_request_are_one_trace(collector: Collector, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        _assert_one_trace(collector, cluster)


def test_separate_programs_and_workers_make_one_trace(collector: Collector, postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=1, proxy=("--workers", "2")) as cluster:
        _assert_one_trace(collector, cluster)
        collector.spans.clear()
        command = _documented_connect().replace("http://127.0.0.1:8080", cluster.control_urls[0])
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60)
        backend = json.loads(done.stdout)["backend_id"]
        cluster.spawned.append(backend)
        cluster.until_status(backend, "ready")
        until(lambda: {"POST /ctrl/connect", "start backend"} <= {span.name for span in collector.trace(TRACE_ID)})


def _documented_connect() -> str:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "traces.md").read_text()
    return next(str(block) for block in re.findall(r"```sh\n(.*?)```", page, re.S) if block.startswith("curl "))


def test_plain_requests_begin_traces_and_malformed_ones_are_ignored(collector: Collector, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        for number, traceparent in enumerate(
            (None, "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", "ff" + TRACEPARENT[2:])
        ):
            url = _connect(cluster, traceparent, key=f"key-{number}")["url"]
            got = _visit(url, traceparent, tracestate="vendor=1")
            assert TRACE_ID not in got["traceparent"]
            assert got["traceparent"] != traceparent
            assert "tracestate" not in got, "it belongs to a trace that is not continued"
        until(lambda: sum(span.name == "start backend" for span in collector.spans) == 4)
        roots = [span for span in collector.spans if span.name in ("POST /ctrl/connect", "request")]
        assert all(span.parent_id == "" for span in roots)


def test_responses_of_the_proxy_and_tunnels_and_failed_starts_have_spans(collector: Collector, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        url = _connect(cluster, None)["url"]
        with cluster.tunnel(url):
            until(lambda: 101 in _statuses(collector))
        gone = cluster.get(url.rsplit("/", 2)[0] + "/no-such-token/")
        assert gone.status == 410
        until(lambda: 410 in _statuses(collector))
        _connect_to_failing(cluster)
        until(lambda: any(span.name == "start backend" and span.failed for span in collector.spans))


def _statuses(collector: Collector) -> set[int]:
    return {s.attributes.get("http.response.status_code", 0) for s in collector.spans if s.name == "request"}


def _connect_to_failing(cluster: Cluster) -> None:
    body = {"spawn_config": {"executable": {"command": ["/no/such/program"]}}}
    assert cluster.call("POST", "/ctrl/connect", body).status == 200


def test_application_with_opentelemetry_is_the_root_of_the_trace(collector: Collector, tmp_path: Path) -> None:
    program = """if True:
        import asyncio, sys
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from plane.client import AsyncPlane, Plane, SpawnConfig

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        config = SpawnConfig(executable={"command": ["sleep", "60"]})
        with trace.get_tracer("app").start_as_current_span("application"):
            with Plane(sys.argv[1], token=sys.argv[2]) as plane:
                plane.connect("from-an-application", config)
    """
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        command = [sys.executable, "-c", program, cluster.control_urls[0], str(cluster.api_key)]
        subprocess.run(command, check=True, timeout=60, env={**os.environ, "OTEL_SERVICE_NAME": "shop"})
        until(lambda: {"application", "plane.connect", "POST /ctrl/connect"} <= {s.name for s in collector.spans})
        spans = _by_name(collector.spans)
        assert spans["plane.connect"].service == "shop"
        assert spans["plane.connect"].parent_id == spans["application"].span_id
        assert spans["POST /ctrl/connect"].parent_id == spans["plane.connect"].span_id


def test_unsampled_trace_is_passed_on_and_not_exported(collector: Collector, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        unsampled = TRACEPARENT[:-1] + "0"
        url = _connect(cluster, unsampled)["url"]
        assert _visit(url, unsampled)["traceparent"] == unsampled
        _visit(url, None)
        until(lambda: any(span.name == "request" for span in collector.spans))
        assert collector.trace(TRACE_ID) == []


@pytest.mark.parametrize("fault", ["hangs", "refuses", "responds with 500"])
def test_collector_that_fails_delays_nothing(
    fault: str, collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if fault == "hangs":
        collector.hangs = threading.Event()
    elif fault == "refuses":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    else:
        collector.status = 500
    # Less than the test's requests need.
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        url = _connect(cluster, TRACEPARENT)["url"]
        for _ in range(100):
            began = time.monotonic()
            _visit(url, TRACEPARENT)
            assert time.monotonic() - began < UNDELAYED_S
        program = cluster.programs["dev"]
        program.says("problem exporting traces")
        began = time.monotonic()
    assert time.monotonic() - began < 20.0, "the end waits for a collector"
    assert program.log.read_text().count("] problem exporting traces") == 1


def test_without_a_collector_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    code = """if True:
        import asyncio, sys
        from plane.tracing.export import start_tracing
        import plane.controller.server, plane.drone.server, plane.proxy.server, plane.dev.cluster, plane.client
        import plane.cli.main, plane.cli.controller, plane.cli.dev
        async def main():
            async with start_tracing("plane-test", enabled=False) as tracer:
                assert tracer is None
        asyncio.run(main())
        assert not [name for name in sys.modules if name.startswith("opentelemetry")]
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


def test_missing_library_and_unusable_url_are_explained(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked" / "opentelemetry"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('not installed')")
    arguments = ["controller", "--db", "postgresql://nobody@127.0.0.1:9/none", "--port", "0"]
    url = "http://127.0.0.1:9"
    missing = run_executed(*arguments, PYTHONPATH=str(blocked.parent), OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert missing.status == 1
    assert "install plane-orchestrator[otel]" in missing.err
    small = run(*arguments, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_MAX_QUEUE_SIZE="4")
    assert small.status == 1
    assert "OTEL_… has an unusable value: max_export_batch_size" in small.err
    assert "Traceback" not in small.err
    malformed = run(*arguments, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_HEADERS="key:of-the-collector")
    assert "Header format invalid" in malformed.err
    assert "of-the-collector" not in malformed.err, "it is a secret"
    bad = run(*arguments, OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
    assert bad.status == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318" in bad.err
