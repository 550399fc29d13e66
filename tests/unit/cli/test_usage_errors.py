"""Errors of malformed flags, and the default values of help."""

from __future__ import annotations

import pytest
from cyclopts import CycloptsError

from plane.cli.main import make_program
from plane.cli.usage_errors import usage_error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("drone", "--controller-url is required. See: plane drone --help"),
        (
            "drone --cluster c --contoller-url http://c",
            "--controller-url is required, and --contoller-url is not understood. See: plane drone --help",
        ),
        (
            "admin drain dr-a --cluster c",
            "--drone is required, and dr-a is not understood. See: plane admin drain --help",
        ),
        ("db list-nodes", "--db or DATABASE_URL is required. See: plane db list-nodes --help"),
        ("admin inspect", "BACKEND is required. See: plane admin inspect --help"),
        ("admin inspect a b", "not understood: b. See: plane admin inspect --help"),
        ("admin list --cluster", "--cluster needs a value. See: plane admin list --help"),
        ("admin logs x -n", "-n needs a value. See: plane admin logs --help"),
        ("admin list --jsno", "Unknown option: --jsno. Did you mean --json? See: plane admin list --help"),
        (
            "admin list --limit 5000",
            'Invalid value "5000" for --limit. Must be <= 1000. See: plane admin list --help',
        ),
        (
            "completion tcsh",
            'Invalid value "tcsh" for SHELL. Choose from: "bash", "zsh", "fish". See: plane completion --help',
        ),
    ],
)
def test_the_error_of_a_flag_names_it_and_where_to_read_on(
    arguments: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(CycloptsError) as raised:
        make_program()(arguments.split())
    assert usage_error(raised.value) == text
    assert capsys.readouterr() == ("", "")


def test_the_error_of_an_unknown_command_suggests_the_closest_one() -> None:
    with pytest.raises(CycloptsError) as raised:
        make_program()(["admin", "lst"])
    text = usage_error(raised.value)
    assert text.startswith('Unknown command "lst". Did you mean "list"? ')
    assert text.endswith(" See: plane admin --help")


def test_help_shows_the_defaults_that_say_something(capsys: pytest.CaptureFixture[str]) -> None:
    program = make_program()
    for command in (["drone"], ["admin", "connect"]):
        program.help_print(command)
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "[default: auto]" in text
    assert "[default: 0]" in text
    assert "[default: /var/run/docker.sock]" in text
    for nothing in ("False", '""', "()", "None"):
        assert f"[default: {nothing}]" not in text
