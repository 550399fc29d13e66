"""What is under deploy/ is read by the programs that it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from harness import real_parts
from harness.program import PLANE
from plane.cli.run_config_file import RunConfig
from plane.cli.run_config_settings import settings_of
from plane.protocol import codec

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
FILES = sorted((DEPLOY / "etc").glob("*.json"))


def needed(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        real_parts.missing(f"{program} (Debian's {package})")
    assert found is not None
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_each_unit(unit: Path, tmp_path: Path) -> None:
    analyze = needed("systemd-analyze", "systemd")
    # systemd looks whether the program is there.
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/plane/bin/plane", str(PLANE)))
    done = subprocess.run([analyze, "verify", here], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_every_role_has_a_unit_and_a_file_that_it_reads() -> None:
    roles = {"controller", "drone", "proxy", "dns"}
    assert {file.stem for file in FILES} == roles
    assert {unit.stem for unit in UNITS} == {f"plane-{role}" for role in roles}
    for role in roles:
        assert f"run-config /etc/plane/{role}.json" in (DEPLOY / "systemd" / f"plane-{role}.service").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_is_what_run_config_takes(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    text = file.read_text().replace("/etc/plane/controller-key", str(key))
    assert type(settings_of(codec.decode(text, RunConfig), file)).__name__.lower() == f"{file.stem}settings"


def test_compose_takes_its_file_and_the_program_its_commands() -> None:
    compose = needed("docker-compose", "docker-compose")
    command = [compose, "-f", str(DEPLOY / "compose.yaml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ +command: (.+)$", (DEPLOY / "compose.yaml").read_text(), re.M)
    assert len(lines) == 3
    for line in lines:
        name, *rest = line.split()
        text = subprocess.run([PLANE, name, "--help"], capture_output=True, text=True, check=True).stdout
        assert [word for word in rest if word.startswith("--") and word not in text] == []


def test_the_image_is_built_from_the_lock_and_from_files_that_are_there() -> None:
    recipe = (DEPLOY / "Containerfile").read_text()
    assert "--require-hashes -r /requirements.lock" in recipe
    assert "--no-index" in recipe
    for line in re.findall(r"^COPY (?!--from)(.+)$", recipe, re.M):
        *sources, _ = line.split()
        # `make dist` makes that folder.
        assert all((ROOT / source).exists() for source in sources if source != "dist"), line


def test_the_bundle_s_own_table_lists_all_of_it() -> None:
    text = (DEPLOY / "README.md").read_text()
    for name in (
        "Containerfile",
        "compose.yaml",
        "systemd/plane-*.service",
        "etc/*.json",
        "kubernetes/probes.yaml",
        "grafana/plane.json",
    ):
        assert f"`{name}`" in text
    assert json.loads((DEPLOY / "etc/proxy.json").read_text())["Proxy"]["acme_config"]


def test_probes_ask_the_ports_of_the_files_for_paths_that_exist() -> None:
    probes = yaml.safe_load((DEPLOY / "kubernetes/probes.yaml").read_text())
    assert set(probes) == {file.stem for file in FILES}
    for file in FILES:
        (config,) = json.loads(file.read_text()).values()
        port = config.get("metrics_port") or int(config["bind_addr"].rpartition(":")[2])
        for probe in probes[file.stem].values():
            assert probe["httpGet"]["port"] == port
            assert probe["httpGet"]["path"] in ("/livez", "/readyz")
    # Kubernetes would end the backends of a drone that it takes for broken.
    assert "readinessProbe" not in probes["drone"]
