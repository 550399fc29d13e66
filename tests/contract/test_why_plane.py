"""The page that compares: each wish has a link and a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts" / "why-plane.md").read_text()


def test_each_wish_has_a_link_and_tests_that_exist() -> None:
    table = PAGE.partition("| --- |")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) >= 10
    for row in rows:
        assert "](https://" in row, row
        tests = re.findall(r"`(tests/[^`]+)`", row)
        assert tests, row
        for test in tests:
            assert (ROOT / test).is_file(), test
