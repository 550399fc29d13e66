"""The documentation builds, its commands run, and its options are those of the program."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cyclopts import App

from harness.program import PLANE
from harness.site import built_site
from plane.cli.admin.program import admin
from plane.cli.db.program import db


def commands_of(group: App) -> list[str]:
    """Names of a group's commands."""
    return [name for name in group if not name.startswith("-")]


ROOT = Path(__file__).parents[2]
COMMANDS = (
    "controller",
    "drone",
    "executor",
    "proxy",
    "dns",
    "dev",
    "doctor",
    "migrate",
    "api-key",
    "run-config",
    "completion",
)
GROUPED = (*(f"admin {name}" for name in commands_of(admin)), *(f"db {name}" for name in commands_of(db)))


def test_it_builds_without_warnings() -> None:
    site = built_site()
    assert (site / "index.html").exists()
    # The examples are shown, and not the lines that include them.
    page = (site / "reference" / "python-client" / "index.html").read_text()
    assert "files of ada" in page
    assert "plain_script.py&quot;" not in page


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPED])
def test_every_option_is_documented_and_every_documented_one_exists(command: str) -> None:
    # Wide enough for the longest option, which is cut in two otherwise.
    wide = {**os.environ, "COLUMNS": "200"}
    text = subprocess.run(
        [PLANE, *command.split(), "--help"], capture_output=True, text=True, check=True, env=wide
    ).stdout
    offered = set(re.findall(r"(--[a-z][a-z-]+)", text)) - {"--help"}
    rows = [
        row
        for page in ("settings.md", "command-line.md")
        for row in (ROOT / "docs" / "reference" / page).read_text().splitlines()
    ]
    documented = set(re.findall(r"`(--[a-z-]+)`", "".join(row for row in rows if row.startswith(f"| {command} |"))))
    offered = {option for option in offered if not option.startswith("--no-")}
    assert documented == offered


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(.*?)\n```", readme, re.S)
    assert commands == ["make dev", "make test"]
    for command in commands:
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (
        ".venv/bin/plane dev"
        in subprocess.run(["make", "dev", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )


def test_the_lists_of_commands_agree() -> None:
    text = subprocess.run([PLANE], capture_output=True, text=True, check=True).stdout
    for command in (*COMMANDS, "version"):
        assert re.search(rf"│ {command} ", text)
    assert "plane 0." in subprocess.run([PLANE, "version"], capture_output=True, text=True, check=True).stdout


def test_malformed_flags_exit_with_2_and_impossible_ones_with_1() -> None:
    for arguments, status in (
        (["controller", "--prot", "1"], 2),
        (["controller", "--db", "postgresql://127.0.0.1:1/x", "--port", "notaport"], 2),
        (["nonsense"], 2),
        (["migrate", "--db", "postgresql://nobody@127.0.0.1:1/x"], 1),
        (["drone", "--controller-url", "nonsense", "--cluster", "c"], 1),
        (["drone", "--controller-url", "http://c", "--cluster", "not a cluster"], 1),
        (["proxy", "--controller-url", "http://c", "--cluster", "c", "--name", "dr-x"], 1),
    ):
        done = subprocess.run([PLANE, *arguments], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == status, (arguments, done.stderr)
        assert done.stderr.strip() or done.stdout.strip()
        assert "Traceback" not in done.stderr
