"""Prints what the changelog says of a version: ``python scripts/release_notes.py v0.2.0``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """Return the section of a version.

    Raises:
        SystemExit: there is none.
    """
    sections = re.split(r"^## ", changelog, flags=re.M)[1:]
    for section in sections:
        title, _, text = section.partition("\n")
        if title.split()[0].strip("[]") == version.removeprefix("v"):
            return text.strip() + "\n"
    sys.exit(f"CHANGELOG.md has no section of {version}")


if __name__ == "__main__":
    sys.stdout.write(notes(CHANGELOG.read_text(), sys.argv[1]))
