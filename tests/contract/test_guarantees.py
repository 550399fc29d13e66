"""Each guarantee names its assumptions, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts" / "guarantees.md").read_text()
GUARANTEES = re.findall(r"^## (\d+)\. (.*?)$(.*?)(?=^## )", PAGE, re.M | re.S)


def test_they_are_numbered() -> None:
    assert [int(number) for number, _, _ in GUARANTEES] == list(range(1, 8))


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda guarantee: guarantee[1])
def test_each_has_assumptions_and_tests_that_exist(guarantee: tuple[str, str, str]) -> None:
    text = guarantee[2]
    assert "**Assumptions.**" in text
    tests = re.findall(r"`(tests/[\w/]+\.py)`", text.partition("**Tests.**")[2])
    assert tests
    assert [test for test in tests if not (ROOT / test).exists()] == []
