"""A run of real programs under faults breaks no guarantee, and three planted bugs are found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.__main__ import with_docker
from faults.planted import HUNTS, SIMULATED, found_by_histories, found_by_simulation
from harness import real_parts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "internals" / "safety-testing.md").read_text()
MINUTES = "3"
# One after the other: each has a dozen programs.
pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.timeout(900)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter. It stays after a failure: the history is in it."""
    if os.geteuid() != 0:
        real_parts.missing("root, who may make namespaces")
    for program in ("nft", "tc", "faketime", "mkfs.ext4", "fsfreeze", "dockerd"):
        if not shutil.which(program):
            real_parts.missing(program)
    made = Path(tempfile.mkdtemp(prefix="plane-faults-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_the_documented_targets_exist() -> None:
    shown = [*re.findall(r"^make .*$", PAGE, re.M), "make faults-planted"]
    assert len(shown) == 3
    for command in shown:
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True, text=True)
        assert "-m faults" in done.stdout


def test_a_run_without_docker_says_so_and_fails_under_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    assert not with_docker(unwanted=False)
    assert "dockerd is missing (on Debian: docker.io): this run has no Docker drone" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    assert not with_docker(unwanted=True)
    with pytest.raises(SystemExit, match="dockerd is missing"):
        with_docker(unwanted=False)


def commit() -> int:
    """A seed that is the same for everybody who tests this commit."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return int(done.stdout[:7] or "1", 16)


def test_no_guarantee_is_broken_under_faults(folder: Path) -> None:
    command = [sys.executable, "-m", "faults", "--minutes", MINUTES, "--seed", str(commit())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    kept = folder / "run"
    kept.mkdir()
    done = subprocess.run(
        [*command, "--folder", str(kept)], check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        kept.rename(folder.with_name(f"{folder.name}-failed"))
    assert done.returncode == 0, f"{folder}-failed\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert "no violation" in done.stdout
    assert (kept / "timeline.html").exists()
    (shown,) = re.findall(r"```sh\nPYTHONPATH=tests \.venv/bin/python (.*)\n```", PAGE)
    again = [sys.executable, *shown.replace("FOLDER", str(kept)).split()]
    figures = subprocess.run(again, check=True, capture_output=True, text=True, env=environment).stdout
    assert "| fault | how often |" in figures


def test_a_planted_bug_is_found_by_a_history(folder: Path) -> None:
    found = found_by_histories("route kept after its removal", folder)
    assert found is not None
    assert found.startswith("guarantee 6 is violated")


@pytest.mark.parametrize("bug", ["token not compared", "order accepted from another clock"])
def test_a_planted_bug_is_found_by_the_simulation(bug: str) -> None:
    assert found_by_simulation(bug) is not None


def test_every_bug_has_a_hunt() -> None:
    assert len({*HUNTS, *SIMULATED}) == 12
