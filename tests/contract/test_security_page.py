"""The page on security agrees with the tables that the program decides by."""

from __future__ import annotations

from pathlib import Path

import pytest

from plane.decisions.http.shared_origin import FIELDS, OriginField

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "security.md").read_text()


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_page_says_what_becomes_of_a_field_for_the_whole_origin_and_why(field: OriginField) -> None:
    treatment = "dropped" if field.dropped else "passed on"
    rows = [row for row in PAGE.splitlines() if row.lower().startswith(f"| `{field.name}` |")]
    assert [row.partition(" | ")[2] for row in rows] == [f"{treatment} | {field.reason} |"]
