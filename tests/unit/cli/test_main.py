"""The program's first screen."""

from __future__ import annotations

import pytest

from plane.cli.main import make_program
from plane.cli.version import version_text


@pytest.mark.parametrize("arguments", ["version", "--version"])
def test_the_version_is_asked_for_in_either_way(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_program()([arguments], result_action="return_value")
    assert capsys.readouterr().out == f"{version_text()}\n"


def test_a_newcomer_sees_first_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    make_program()([], result_action="return_value")
    help_text = capsys.readouterr().out
    assert "To try it: plane dev" in help_text
    assert help_text.index("Run") < help_text.index("Operate") < help_text.index("Set up")
