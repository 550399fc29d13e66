"""The page of start, stop and probe timings has those of the program, of the units and of the manifests."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from plane import timing
from plane.drone import server as drone

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/timings.md").read_text()
PROBES = yaml.safe_load((ROOT / "deploy/kubernetes/probes.yaml").read_text())
TEMPLATES = ROOT / "deploy/helm/plane/templates"
NAMES = {"controller": "controller", "proxy": "proxy", "drone": "drone", "dns": "DNS server"}


def row(section: str, part: str) -> list[str]:
    """The cells of the row of a part."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (line,) = (line for line in text.splitlines() if line.startswith((f"| {part} |", f"| {part} with a state store |")))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_stops_take_no_longer_than_the_program_s_own_limits() -> None:
    assert row("Stop", "controller")[2].startswith(f"{timing.CONTROLLER_SHUTDOWN_GRACE_S:g} s")
    assert row("Stop", "proxy")[2] == f"{timing.PROXY_SHUTDOWN_GRACE_S:g} s"
    assert row("Stop", "drone")[2] == f"{drone.LAST_EVENTS_TIMEOUT_S:g} s"
    assert f"`--terminate-on-exit` | terminates its backends softly | {drone.STOP_GRACE_S:g} s" in PAGE


def test_probes_are_those_of_the_file() -> None:
    for part, name in NAMES.items():
        _, *cells = row("Probes", name)
        for probe, cell in zip(("livenessProbe", "readinessProbe"), cells, strict=True):
            found = PROBES[part].get(probe)
            expected = "none"
            if found is not None:
                expected = (
                    f"`{found['httpGet']['path']}` every {found['periodSeconds']} s,"
                    f" timeout {found['timeoutSeconds']} s, {found['failureThreshold']} failures"
                )
            assert cell == expected, (part, probe)


def test_units_and_chart_give_a_part_the_time_that_it_needs() -> None:
    unit = (ROOT / "deploy/systemd/plane-proxy.service").read_text()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert f"`TimeoutStopSec={stop}`" in row("Stop", "proxy")[3]
    assert int(stop) > timing.PROXY_SHUTDOWN_GRACE_S

    (wait,) = re.findall(r'command: \[sleep, "(\d+)"\]', (TEMPLATES / "_helpers.tpl").read_text())
    values = yaml.safe_load((ROOT / "deploy/helm/plane/values.yaml").read_text())
    graces = {
        "controller": int(re.findall(r"GracePeriodSeconds: (\d+)", (TEMPLATES / "controller.yaml").read_text())[0]),
        "proxy": values["proxy"]["terminationGracePeriodSeconds"],
        # Kubernetes's default.
        "dns": 30,
    }
    for part, grace in graces.items():
        assert '"plane.drain"' in (TEMPLATES / f"{part}.yaml").read_text()
        assert f"`preStop` {wait} s" in row("Stop", NAMES[part])[4]
        assert grace >= int(wait) + timing.PROXY_SHUTDOWN_GRACE_S
    for part in ("controller", "proxy"):
        assert f"`terminationGracePeriodSeconds` {graces[part]}" in row("Stop", NAMES[part])[4]
    # Its backends continue, so a drone needs no time in which it gets no work.
    assert '"plane.drain"' not in (TEMPLATES / "drone.yaml").read_text()
