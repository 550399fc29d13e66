"""What a release needs: a workflow that runs this repository's own commands, notes from the changelog, and metadata."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from plane.version import VERSION

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def steps(job: str) -> str:
    return "\n".join(str(step) for step in WORKFLOW["jobs"][job]["steps"])


def test_nothing_is_published_that_was_not_tested_and_attested() -> None:
    jobs = WORKFLOW["jobs"]
    assert jobs["compiled"]["needs"] == "test"
    assert jobs["build"]["needs"] == "compiled"
    assert set(jobs["publish"]["needs"]) == {"build", "image"}
    assert "bash .ci/run" in steps("test")
    built = steps("build")
    # The compiled wheels have come before the sums, which are what is attested.
    assert built.index("make dist") < built.index("compiled-*") < built.index("make sums") < built.index("SHA256SUMS")
    assert "attest-build-provenance" in steps("build")
    assert "attest-sbom" in steps("build")
    # Only what must write may.
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in jobs.values())


def test_files_that_the_workflow_names_are_there() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    for name in re.findall(r"\b(?:scripts|deploy|docs)/[\w./-]+", text):
        assert (ROOT / name).exists(), name
    assert "\ndist:" in (ROOT / "Makefile").read_text()


def test_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    command = [sys.executable, "scripts/release_notes.py"]
    done = subprocess.run([*command, f"v{VERSION}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("### ", "The "))
    missing = subprocess.run([*command, "v99.0.0"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (1, "")


def test_citation_and_issue_forms_are_well_formed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"]
    assert citation["authors"]
    for form in ("bug", "idea"):
        content = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())
        assert {"name", "description", "body"} <= set(content)
