"""Health and metrics of every part; boards and alerts against a real Prometheus that scrapes a live cluster."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from harness.clusters import Cluster, separate_parts, until
from harness.ports import free_port
from harness.program import program
from harness.real_parts import OwnPostgres

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
BOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
# A drone that has no lease does not have this one.
OF_LEASES = "plane_drone_lease_shortest_seconds"
METRIC = re.compile(r"\bplane_[a-z_]+\b")


def get(url: str, timeout_s: float = 10.0) -> tuple[int, str]:
    """Status and text of a response; 0 without one."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def scraped_metrics(base: str) -> set[tuple[str, str, str]]:
    """Name, kind and text of each metric of a part."""
    text = get(f"{base}/metrics")[1]
    texts = dict(re.findall(r"^# HELP (plane_\S+) (.*)$", text, re.M))
    return {(name, kind, texts[name]) for name, kind in re.findall(r"^# TYPE (plane_\S+) (\w+)$", text, re.M)}


def documented_metrics(part: str) -> set[tuple[str, str, str]]:
    """The same, as the page of metrics has them."""
    file = ROOT / "scripts/generated_pages.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = pages
    spec.loader.exec_module(pages)
    return {(each.name, each.kind, each.text) for each in pages.metrics() if each.part == part}


def until_ready(base: str) -> None:
    until(lambda: get(f"{base}/readyz") == (200, "ok\n"))


def until_unready(base: str, reason: str) -> None:
    until(lambda: get(f"{base}/readyz")[0] == 503)
    assert reason in get(f"{base}/readyz")[1]


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    server = OwnPostgres()
    server.start()
    yield server
    server.stop(signal.SIGINT)


def test_liveness_depends_on_nothing_and_readiness_names_what_is_missing(
    own_postgres: OwnPostgres, tmp_path: Path
) -> None:
    ports = {part: free_port() for part in ("drone", "proxy", "dns")}
    base = {part: f"http://127.0.0.1:{port}" for part, port in ports.items()}
    options = {part: ("--metrics-port", str(port)) for part, port in ports.items()}
    with separate_parts(
        own_postgres.url,
        tmp_path,
        controllers=1,
        drone=("--terminate-on-exit", *options["drone"]),
        proxy=options["proxy"],
    ) as cluster:
        base["controller"] = cluster.control_urls[0]
        dns = ["dns", "--controller-url", base["controller"], "--zone", "acme.example", "--host", "127.0.0.1"]
        with program([*dns, "--port", "0", *options["dns"]], tmp_path, "dns"):
            for part in base:
                until_ready(base[part])
                assert get(f"{base[part]}/livez") == (200, "ok\n")
                assert scraped_metrics(base[part]) <= documented_metrics(part)
                missing = documented_metrics(part) - scraped_metrics(base[part])
                assert {name for name, _, _ in missing} <= {OF_LEASES}
            own_postgres.stop(signal.SIGINT)
            until_unready(base["controller"], "the database does not respond")
            assert get(f"{base['controller']}/livez") == (200, "ok\n")
            cluster.programs["controller-0"].stop(signal.SIGKILL)
            for part in ports:
                until_unready(base[part], "controller")
                assert get(f"{base[part]}/livez") == (200, "ok\n")
            own_postgres.start()
            cluster.start_again("controller-0")
            for part in base:
                until_ready(base[part])


def test_the_drone_s_metrics_follow_its_backends(postgres_url: str, tmp_path: Path) -> None:
    port = free_port()
    drone = ("--terminate-on-exit", "--metrics-port", str(port))
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=drone) as cluster:

        def value(name: str) -> float:
            found = re.search(rf"^{re.escape(name)} (\S+)$", get(f"http://127.0.0.1:{port}/metrics")[1], re.M)
            return float("nan") if found is None else float(found[1])

        until(lambda: value("plane_drone_watchdog_responds") == 1)
        backend = cluster.spawn("k")["backend_id"]
        cluster.until_status(backend, "ready")
        assert value('plane_drone_backends{status="ready"}') == 1
        assert value("plane_drone_leases") == 1
        assert 0 < value("plane_drone_lease_shortest_seconds") <= 40
        until(lambda: value("plane_drone_events_unacknowledged") == 0)
        failing = {"executable": {"command": ["sh", "-c", "exit 3"], "isolation": cluster.isolation}}
        cluster.until_status(cluster.connect(spawn_config=failing)["backend_id"], "terminated")
        cluster.call("POST", f"/ctrl/b/{backend}/soft-terminate")
        cluster.until_status(backend, "terminated")
        until(lambda: value('plane_drone_backend_states_total{status="terminated"}') == 2)
        assert value("plane_drone_backend_failures_total") == 1
        assert value('plane_drone_backend_states_total{status="loading"}') == 2
        assert value('plane_drone_backends{status="ready"}') == 0
        assert value("plane_drone_events_in_memory") == 0
        # A stopped watchdog is noticed, replaced, and counted.
        (watchdog,) = (
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if b"plane.drone.watchdog.main" in _read(path) and _parent(path) == cluster.programs["drone"].process.pid
        )
        subprocess.run(["kill", "-STOP", str(watchdog)], check=True)
        until(lambda: value("plane_drone_watchdog_starts_total") == 2)
        until(lambda: value("plane_drone_watchdog_responds") == 1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parent(cmdline: Path) -> int:
    return int(cmdline.with_name("stat").read_text().rpartition(")")[2].split()[1])


def test_a_metrics_port_that_is_taken_ends_the_drone_with_a_reason(postgres_url: str, tmp_path: Path) -> None:
    with separate_parts(postgres_url, tmp_path, controllers=1) as cluster:
        taken = cluster.control_urls[0].rpartition(":")[2]
        command = ["drone", "--controller-url", cluster.control_urls[0], "--cluster", "c", "--runtime", "process"]
        with program([*command, "--metrics-port", taken], tmp_path, "second") as second:
            second.says("choose another with --metrics-port")
            assert second.process.wait(30) == 1


def needed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        real_parts.missing(f"{name} (Debian's prometheus)")
    assert found is not None
    return found


@pytest.fixture
def scraped(postgres_url: str, tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    """A cluster, and the URL of a Prometheus that scrapes all of its parts with the alerts loaded."""
    prometheus = needed("prometheus")
    drone_port, proxy_port, own_port = free_port(), free_port(), free_port()
    drone = ("--terminate-on-exit", "--metrics-port", str(drone_port))
    proxy = ("--metrics-port", str(proxy_port))
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=drone, proxy=proxy) as cluster:
        targets = {
            "plane-controller": cluster.control_urls[0].removeprefix("http://"),
            "plane-drone": f"127.0.0.1:{drone_port}",
            "plane-proxy": f"127.0.0.1:{proxy_port}",
        }
        jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": jobs,
        }
        file = tmp_path / "prometheus.yml"
        # JSON is YAML.
        file.write_text(json.dumps(config))
        with (tmp_path / "prometheus.log").open("wb") as log:
            running = subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={file}",
                    f"--web.listen-address=127.0.0.1:{own_port}",
                    f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            yield cluster, f"http://127.0.0.1:{own_port}"
        finally:
            running.terminate()
            running.wait(30)


def expressions() -> dict[str, set[str]]:
    """The metrics that each board and the alerts name."""
    found = {}
    for board in BOARDS:
        panels = json.loads(board.read_text())["panels"]
        targets = [target["expr"] for panel in panels for target in panel.get("targets", ())]
        found[board.name] = set(METRIC.findall(" ".join(targets)))
    alerts = re.findall(r"expr: ((?:.|\n)*?)\n        \w", ALERTS.read_text())
    found[ALERTS.name] = set(METRIC.findall(" ".join(alerts)))
    return found


def test_each_metric_of_boards_and_alerts_exists_in_a_live_cluster(scraped: tuple[Cluster, str]) -> None:
    cluster, prometheus = scraped
    backend = cluster.spawn("k")
    cluster.until_status(backend["backend_id"], "ready")
    assert cluster.get(backend["url"]).status == 200

    def query(path: str) -> Any:
        status, text = get(f"{prometheus}/api/v1/{path}")
        return json.loads(text)["data"] if status == 200 else []

    wanted = expressions()
    assert all(len(names) > 10 for names in wanted.values())
    until(lambda: {name for names in wanted.values() for name in names} <= set(query("label/__name__/values")))
    until(lambda: {target["health"] for target in query("targets")["activeTargets"]} == {"up"})
    # A healthy cluster raises no alert.
    rules = [rule for group in query("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_promtool_takes_the_rules_and_their_tests_pass(tmp_path: Path) -> None:
    promtool = needed("promtool")
    for file in (ALERTS, ROOT / "tests/contract/prometheus/alerts_test.yaml"):
        shutil.copy(file, tmp_path)
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    config = (ROOT / "deploy/prometheus/prometheus.yaml").read_text()
    (tmp_path / "key").write_text("k")
    (tmp_path / "prometheus.yaml").write_text(config.replace("/etc/prometheus/plane-api-key", str(tmp_path / "key")))
    done = subprocess.run(
        [promtool, "check", "config", "prometheus.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_to_do() -> None:
    text = ALERTS.read_text()
    alerts = text.split("- alert: ")[1:]
    assert len(alerts) > 10
    for alert in alerts:
        assert "severity: " in alert
        assert "summary: " in alert
        assert "runbook: " in alert
