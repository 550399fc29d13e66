"""What `make dist` builds: a wheel that runs in an empty environment, an image, and a bill of materials."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import until
from harness.docker_parts import own_docker
from harness.machines import CHECKOUT, Machine, copy_checkout, debian, machine, wheels
from harness.pages import blocks

pytestmark = pytest.mark.timeout(600)

# Releases of Debian with their Python. Before a release of Plane also the next one of Debian, which changes every day:
# PLANE_TEST_SYSTEMS=forky=3.14.
SYSTEMS = [("bookworm", "3.11"), ("trixie", "3.13")]
SYSTEMS += [(name, python) for name, _, python in [os.environ.get("PLANE_TEST_SYSTEMS", "").partition("=")] if name]
READY = "Ctrl-C ends everything"
LIBRARIES = "/opt/libraries"
HOME = "/home/ada"
# A machine of the tests has no network.
ENVIRONMENT = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": LIBRARIES,
    "PIP_NO_COMPILE": "1",
    "UV_OFFLINE": "1",
    "UV_NO_INDEX": "1",
    "UV_FIND_LINKS": LIBRARIES,
    "UV_PYTHON_DOWNLOADS": "never",
}


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


@pytest.mark.parametrize(("codename", "python"), SYSTEMS)
def test_wheel_starts_a_cluster_from_an_empty_environment(
    wheel: Path, tmp_path: Path, codename: str, python: str
) -> None:
    # The page is docs/how-to/install.md.
    with bare_machine(tmp_path, wheel, codename, python) as there:
        assert there.sh(documented("from a release"), cwd=HOME, **ENVIRONMENT).splitlines()[-1].startswith("plane 0.")
        starts_a_cluster(there, tmp_path, ("/opt/plane/bin/plane", "dev"))


def test_uvx_starts_a_cluster_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    uvx = Path(sys.executable).parent / "uvx"
    if not uvx.exists():
        real_parts.missing("uvx (uv, from PyPI)")
    with bare_machine(tmp_path, wheel, "trixie", "3.13") as there:
        for name in ("uv", "uvx"):
            shutil.copy(uvx.with_name(name), there.root / "usr/local/bin")
        starts_a_cluster(there, tmp_path, ("sh", "-c", f"exec {documented('without installing')}"))


def test_sources_are_installed_with_the_libraries_of_the_lock(wheel: Path, tmp_path: Path) -> None:
    with bare_machine(tmp_path, wheel, "trixie", "3.13") as there:
        copy_checkout(there.root / "opt/sources")
        printed = there.sh(documented("from the sources"), cwd="/opt/sources", **ENVIRONMENT)
        assert printed.splitlines()[-1].startswith("plane 0.")


def documented(title: str) -> str:
    """A block of the page on installing."""
    (found,) = (each.text for each in blocks(CHECKOUT / "docs/how-to/install.md") if each.title == title)
    return found


@contextmanager
def bare_machine(folder: Path, wheel: Path, codename: str, python: str) -> Iterator[Machine]:
    """A fresh Debian with a user, the wheel in the user's home, and what pip and uv would download."""
    with machine(folder / "machine", debian(codename)) as there:
        there.copy(wheels(python), LIBRARIES)
        there.sh("useradd --create-home ada")
        shutil.copy(wheel, there.root / HOME.lstrip("/"))
        yield there


def starts_a_cluster(there: Machine, folder: Path, command: tuple[str, ...]) -> None:
    """The command, run by the user, starts a cluster that serves."""
    with there.running(command, folder / "log", cwd=HOME, environment=ENVIRONMENT, user="ada") as dev:
        printed = dev.says(READY)
        line = next(line for line in printed.splitlines() if line.startswith("curl "))
        answer = json.loads(there.sh(line))
        page = there.sh(f"curl -sS --fail --max-time 30 {shlex.quote(answer['url'])}")
        assert answer["backend_id"] in page
        dev.interrupt()
    assert "Traceback" not in (folder / "log").read_text()


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
