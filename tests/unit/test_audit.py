"""What `make check` says of known vulnerabilities."""

from __future__ import annotations

from typing import Any

import pytest
from scripts.audit import verdict

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "X", "fix_versions": []}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "code", "text"),
    [
        ([GOOD], 0, "1 dependencies have no known vulnerability"),
        ([GOOD, SKIPPED], 0, "1 dependencies have no known vulnerability; 1 unknown"),
        ([SKIPPED, SKIPPED], 0, "not audited: no advisories can be had here"),
        (
            [SKIPPED, BAD],
            1,
            "known vulnerabilities; take newer versions into the lock:\nb 2: CVE-1; fixed in 3\nb 2: X; fixed in none",
        ),
    ],
)
def test_verdict(dependencies: list[dict[str, Any]], code: int, text: str) -> None:
    assert verdict(dependencies) == (code, text)
