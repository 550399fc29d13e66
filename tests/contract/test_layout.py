"""The tree of unit tests is that of the sources: a reader of either finds the other."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE, TESTS = ROOT / "src" / "plane", ROOT / "tests" / "unit"
# Tests of the package as a whole, and of scripts.
OF_NO_FILE = {"test_audit.py", "test_exports.py"}
DECISIONS = sorted((SOURCE / "decisions").rglob("[!_]*.py"))


@pytest.mark.parametrize("test", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_a_unit_test_lies_where_its_source_lies(test: Path) -> None:
    place = test.relative_to(TESTS)
    if str(place) not in OF_NO_FILE:
        assert (SOURCE / place.parent / place.name.removeprefix("test_")).exists()


@pytest.mark.parametrize("source", DECISIONS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_decision_has_its_tests(source: Path) -> None:
    assert (TESTS / source.relative_to(SOURCE).parent / f"test_{source.name}").exists()
