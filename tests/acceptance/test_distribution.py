"""What `make dist` builds: a wheel that runs in an empty environment, an image, and a bill of materials."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness.clusters import until
from harness.docker_parts import own_docker
from harness.machines import CHECKOUT, debian, machine, wheels

pytestmark = pytest.mark.timeout(600)

READY = "Ctrl-C ends everything"
LIBRARIES = "/opt/libraries"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make dist` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top.rpartition("-")[0].partition("-")[0] for top in tops if "dist-info" in top} == {"plane_orchestrator"}
    assert {top for top in tops if "dist-info" not in top} == {"plane"}
    assert "plane/py.typed" in names
    assert any(name.endswith("0001_plane_0_5_5.sql") for name in names)
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)


@pytest.mark.parametrize(("codename", "python"), [("bookworm", "3.11"), ("trixie", "3.13")])
def test_wheel_starts_a_cluster_from_an_empty_environment(
    wheel: Path, tmp_path: Path, codename: str, python: str
) -> None:
    with machine(tmp_path / "machine", debian(codename)) as there:
        there.copy(wheels(python), LIBRARIES)
        shutil.copy(wheel, there.root / "opt")
        there.sh("useradd --create-home ada")
        home = "/home/ada"
        # Only what is imported is compiled, when it is.
        there.sh(
            f"python3 -m venv {home}/env && {home}/env/bin/pip install --quiet --no-compile --no-index"
            f" --find-links {LIBRARIES}"
            f" /opt/{wheel.name}",
            user="ada",
            cwd=home,
            HOME=home,
        )
        command = (f"{home}/env/bin/plane", "dev")
        with there.running(
            command, tmp_path / "log", cwd=home, environment={"HOME": home, "LANG": "C.UTF-8"}, user="ada"
        ) as dev:
            printed = dev.says(READY)
            line = next(line for line in printed.splitlines() if line.startswith("curl "))
            answer = json.loads(there.sh(line))
            page = there.sh(f"curl -sS --fail --max-time 30 {shlex.quote(answer['url'])}")
            assert answer["backend_id"] in page
            dev.interrupt()
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_image_runs_as_an_unprivileged_user_and_reports_its_health(wheel: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "dist").mkdir(parents=True)
    shutil.copy(wheel, context / "dist")
    shutil.copytree(wheels("3.13"), context / "dist" / "libraries")
    for name in ("requirements.lock", "deploy/Containerfile"):
        shutil.copy(CHECKOUT / name, context)
    base = tmp_path / "base.tar"
    with tarfile.open(base, "w") as archive:
        archive.add(debian("trixie"), arcname="/")
    with own_docker() as engine:
        engine.run("import", str(base), "base")
        base.unlink()
        build = ["build", "--network", "none", "--build-arg", "BASE=base", "-f", str(context / "Containerfile")]
        engine.run(*build, "-t", "plane", str(context))
        assert engine.run("run", "--rm", "--network", "none", "plane", "version").stdout.startswith("plane ")
        assert engine.run("run", "--rm", "--network", "none", "--entrypoint", "id", "plane", "-u").stdout == "65532\n"
        # A DNS server needs no database and no other machine.
        dns = [
            "dns",
            "--controller-url",
            "http://127.0.0.1:1",
            "--zone",
            "acme.example.com",
            "--port",
            "5353",
            "--metrics-port",
            "9200",
        ]
        livez = ["-e", "PLANE_LIVEZ=http://127.0.0.1:9200/livez"]
        container = engine.run("run", "-d", "--network", "none", *livez, "plane", *dns).stdout.strip()
        status = ["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container]
        assert engine.run(*status).stdout.startswith("running")
        until(lambda: engine.run(*status).stdout == "running healthy\n", 60)


def test_bill_of_materials_names_each_library_of_the_lock_with_its_hashes() -> None:
    command = [sys.executable, "scripts/sbom.py", "requirements.lock"]
    bill = json.loads(subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    locked = {
        line.partition("==")[0]: line.partition("==")[2].split()[0]
        for line in (CHECKOUT / "requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith(" ")
    }
    assert {each["name"]: each["version"] for each in bill["components"]} == locked
    assert all(each["hashes"] and each["purl"].startswith("pkg:pypi/") for each in bill["components"])
    assert bill["metadata"]["component"]["name"] == "plane-orchestrator"
