"""The console's copies of htmx and uPlot are those that are written down, with their licences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

STATIC = Path(__file__).parents[2] / "src/plane/controller/console/static"
VENDORED = json.loads((STATIC / "vendored.json").read_text())
OWN = {"console.css", "console.js", "icon.svg", "vendored.json"}


def test_every_file_is_own_or_a_copy_that_is_written_down() -> None:
    copies = {name for package in VENDORED.values() for name in package["files"]}
    assert {file.name for file in STATIC.iterdir()} == OWN | copies


def test_the_copies_are_unchanged() -> None:
    for package in VENDORED.values():
        for name, file in package["files"].items():
            assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == file["sha256"], name


def test_every_package_has_its_version_and_licence() -> None:
    for package in VENDORED.values():
        assert package["version"]
        assert [name for name in package["files"] if name.endswith(".LICENSE.txt")]
    assert f'version:"{VENDORED["htmx.org"]["version"]}"' in (STATIC / "htmx.min.js").read_text()
