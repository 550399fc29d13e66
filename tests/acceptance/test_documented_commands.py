"""Every command line that the documentation shows for a running cluster is run on one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from harness.clusters import dev_cluster
from harness.commands import LIMIT_S
from harness.program import PLANE

DOCS = Path(__file__).parents[2] / "docs"


def documented() -> list[str]:
    blocks = [
        block
        for page in ("tutorial/first-cluster.md", "reference/command-line.md")
        for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.S)
    ]
    return [line for block in blocks for line in block.splitlines()]


def test_the_lines_of_the_documentation_work_one_after_the_other(tmp_path: Path) -> None:
    lines = documented()
    assert len(lines) > 10
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        values = {**os.environ, "PLANE_CONTROLLER": cluster.control_urls[0]}
        for line in lines:
            command = line.replace(".venv/bin/plane", str(PLANE))
            done = subprocess.run(
                ["sh", "-c", command], env=values, capture_output=True, text=True, check=False, timeout=LIMIT_S
            )
            assert done.returncode == 0, (line, done.stderr)
            assert done.stdout, line
