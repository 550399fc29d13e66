"""The chart under deploy/helm: its values, its templates, and the command lines in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

from harness.program import PLANE

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "plane"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
VALIDATOR = Draft202012Validator(json.loads((CHART / "values.schema.json").read_text()))
# With everything that can be switched on, and the other kind of drone.
EVERYTHING = (
    "dns.enabled=true",
    "proxy.tlsSecret=certificate",
    "proxy.trustedProxies={10.0.0.0/8}",
    "drone.runtime=process",
)


def test_values_are_valid_and_mistakes_are_not() -> None:
    VALIDATOR.validate(VALUES)
    mistakes: tuple[dict[str, Any], ...] = (
        {"cluster": "not a host"},
        {"replicas": 3},
        {"proxy": {**VALUES["proxy"], "replicas": 0}},
        {"drone": {**VALUES["drone"], "runtime": "podman"}},
        {"database": {}},
    )
    for mistake in mistakes:
        assert list(VALIDATOR.iter_errors(VALUES | mistake)), mistake


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.stem)
def test_each_value_that_a_template_uses_exists(template: Path) -> None:
    used = re.findall(r"\.Values\.([\w.]+)", template.read_text())
    assert used
    for path in used:
        found: Any = VALUES
        for name in path.split("."):
            assert name in found, path
            found = found[name]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.stem)
def test_each_option_that_a_template_gives_is_one_of_the_program(template: Path) -> None:
    text = template.read_text()
    (command,) = re.findall(r"args:\n +- (\w+)\n", text)
    offered = subprocess.run([PLANE, command, "--help"], capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^ +- (--[a-z-]+)", text, re.M)
    assert options
    for option in options:
        assert option in offered, option


@pytest.mark.parametrize("options", [(), EVERYTHING], ids=["default", "everything"])
def test_helm_renders_what_kubernetes_takes(options: tuple[str, ...]) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not among Debian's packages; the other tests check values, templates and options")
    settings = [word for option in options for word in ("--set", option)]
    subprocess.run([helm, "lint", "--strict", CHART, *settings], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [helm, "template", "demo", CHART, "--kube-version", "1.30.0", *settings],
        capture_output=True,
        text=True,
        check=True,
    )
    rendered = [document for document in yaml.safe_load_all(done.stdout) if document]
    kinds = {(each["kind"], each["metadata"]["name"]) for each in rendered}
    expected = {("Deployment", "demo-controller"), ("Deployment", "demo-proxy"), ("DaemonSet", "demo-drone")}
    assert expected <= kinds
    assert (("Deployment", "demo-dns") in kinds) is bool(options)
    for each in rendered:
        if each["kind"] in ("Deployment", "DaemonSet"):
            pod = each["spec"]["template"]["spec"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert container["image"] == "plane:0.2.0"
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
                assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
                ports = {port["name"] for port in container["ports"]}
                assert container["livenessProbe"]["httpGet"]["port"] in ports
                has_readiness = each["metadata"]["name"] in ("demo-controller", "demo-proxy")
                assert ("readinessProbe" in container) is has_readiness
