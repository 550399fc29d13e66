"""The site of the documentation, built once for all tests of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.real_parts import shared_folder

__all__ = ["built_site"]

ROOT = Path(__file__).parents[2]


def built_site() -> Path:
    """Return the folder of the site, which is built without a warning."""
    return shared_folder("site", _build)


def _build(folder: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
