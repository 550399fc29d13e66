"""What the recipes' tests install is locked by hash, and the locks name no place to get it from."""

from __future__ import annotations

import json
import re
from pathlib import Path

APPLICATIONS = Path(__file__).parents[1] / "applications"


def test_every_python_package_has_hashes_and_no_address() -> None:
    text = (APPLICATIONS / "requirements.lock").read_text()
    packages = re.findall(r"^[a-z0-9][^ ]*==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.M)
    assert len(packages) == len(re.findall(r"^[a-z0-9].*==", text, re.M)) > 50
    assert "://" not in text
    wanted = {line.partition("[")[0] for line in (APPLICATIONS / "requirements.in").read_text().splitlines()}
    assert wanted <= set(re.findall(r"^([a-z0-9-]+)", text, re.M))


def test_every_npm_package_has_a_hash_and_no_address() -> None:
    lock = json.loads((APPLICATIONS / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 20
    assert [name for name, package in packages.items() if not package["integrity"].startswith("sha512-")] == []
    assert "://" not in json.dumps(lock)
    wanted = json.loads((APPLICATIONS / "package.json").read_text())["dependencies"]
    assert {f"node_modules/{name}" for name in wanted} <= set(packages)
