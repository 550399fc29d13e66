"""The wheel with a compiled proxy (decision 0023) passes the tests of its sources, and the program says what it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from harness import real_parts
from harness.compiled import compiled_sources
from harness.pages import blocks
from harness.program import EXECUTED, program

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs/how-to/scale.md"
BUILT = CHECKOUT / "dist/compiled"
# Limits are pickled for worker processes; mypyc's frozen dataclasses cannot be.
NOT_COMPILED = {"decisions/http/limits.py"}
# Not among them: tests that shorten constants, which are compiled in, and tests that read the source of a function.
UNIT_TESTS = ("decisions/http", "decisions/routing", "proxy")
LEFT_OUT = ("decisions/http/test_exchange_commands.py", "proxy/data_plane/test_route_lookup.py")
PROXY_TESTS = (
    "applications",
    "bytes",
    "corpus",
    "http",
    "kept_connections",
    "load_balancers",
    "malformed",
    "pages",
    "processes",
    "response_ends",
    "shared_origin",
    "time",
    "tunnels",
)
# They run whole programs: what is not compiled calls what is, which checks the types of its arguments.
PROGRAM_TESTS = ("application_paths", "attacks_on_requests")
# mypyc passes what ends a coroutine on to the one that it awaits, in a way that Python 3.12 and later warn of.
WARNING = "ignore:the (type, exc, tb) signature of throw() is deprecated:DeprecationWarning"
pytestmark = [pytest.mark.xdist_group("compiled"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder of the compiled package, built as the page says."""
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        real_parts.missing("a C compiler with Python's headers")
    (command,) = [block.text for block in blocks(PAGE) if block.title == "compile"]
    subprocess.run(command, shell=True, cwd=CHECKOUT, check=True, capture_output=True)
    return BUILT / "packages"


@pytest.mark.usefixtures("packages")
def test_the_path_of_a_request_is_compiled_and_nothing_else() -> None:
    (wheel,) = BUILT.glob("*.whl")
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{version}-{version}-linux_" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    compiled = {re.sub(r"\..*", ".py", name) for name in names if name.startswith("plane/") and name.endswith(".so")}
    expected = {f"plane/{path}" for path in compiled_sources() if path.name != "__init__.py"}
    assert compiled == expected - {f"plane/{name}" for name in NOT_COMPILED}
    # There it would be imported instead of its source, by all other tests too.
    assert not list((CHECKOUT / "src").rglob("*.so"))


def test_the_program_says_whether_it_is_compiled(packages: Path, tmp_path: Path) -> None:
    arguments = ["proxy", "--controller-url", "http://127.0.0.1:1", "--cluster", "localhost:9", "--http-port", "0"]
    with program(arguments, tmp_path, "compiled", EXECUTED, PYTHONPATH=str(packages)) as running:
        running.says("compiled=True")
    with program(arguments, tmp_path, "sources", EXECUTED) as running:
        running.says("compiled=False")


def test_the_tests_of_the_sources_pass(packages: Path, tmp_path: Path) -> None:
    tests = [f"tests/unit/{name}" for name in UNIT_TESTS]
    tests += [f"tests/integration/test_proxy_{name}.py" for name in PROXY_TESTS]
    tests += [f"tests/acceptance/test_{name}.py" for name in PROGRAM_TESTS]
    tests += [f"--deselect=tests/unit/{name}" for name in LEFT_OUT]
    options = ["-q", "-p", "no:cacheprovider", "-W", WARNING, "--basetemp", str(tmp_path / "tests")]
    # As all others: in parallel, and in CI once more after a failure (docs/decisions/0019-reruns.md).
    options += ["-n", "2", *(["--reruns", "1"] if os.environ.get("CI") else [])]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # A worker of a parallel run has told its children by variables that they are one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(packages)
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
