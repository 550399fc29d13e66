from __future__ import annotations

import pytest

from plane.cli.main import options_last


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("admin --controller http://c status", "admin status --controller http://c"),
        ("admin --controller=http://c status --json", "admin status --controller=http://c --json"),
        ("db --db postgresql://d cleanup 10", "db cleanup --db postgresql://d 10"),
        ("admin status --controller http://c", "admin status --controller http://c"),
        ("admin --help", "admin --help"),
        ("admin --controller", "admin --controller"),
        ("controller --db postgresql://d", "controller --db postgresql://d"),
        ("", ""),
    ],
)
def test_a_group_s_options_may_stand_before_its_command(given: str, read: str) -> None:
    assert options_last(given.split()) == read.split()
