"""Nothing in the repository refers to a document outside of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(
    r"\bpage [1-9]\b|\(A[1-9][0-9]?\)|\bA[1-9][0-9]? of\b|\.\./shared"
    r"|\b[1-7]-(overview|wire|controller|drone|proxy|cli|beyond)"
)
# Migrations that were applied somewhere stay as they are, to the byte.
UNCHANGEABLE = "src/plane/database/migrations/"
TEXT = (".py", ".md", ".sql", ".toml", ".yml", ".sh", ".html", "Makefile")


def test_no_reference_leads_out_of_the_repository() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in files
        if name.endswith(TEXT) and not name.startswith(UNCHANGEABLE) and Path(name) != Path(__file__).relative_to(ROOT)
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if OUTSIDE.search(line)
    ]
    assert found == []
