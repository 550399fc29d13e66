"""The program's first screen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plane.cli.main import make_program, options_last
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


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("admin --controller http://c status", "admin status --controller http://c"),
        ("admin --controller http://c webhook test x", "admin webhook test --controller http://c x"),
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


# Instead of reading its arguments, the program imports what it would import after that.
SERVES = """
import sys
from unittest import mock
from plane.cli import main

class Program:
    help_flags = ()

    def __call__(self, _):
        import plane.cli.serving, plane.{role}.server

sys.argv = ["plane", "{role}"]
with mock.patch.object(main, "make_program", Program):
    main.main()
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"rich", "pygments", "jinja2", "opentelemetry"}}))
import rich.console
"""


@pytest.mark.parametrize("role", ["controller", "drone", "proxy", "dns"])
def test_a_program_that_serves_starts_without_what_only_people_need(role: str) -> None:
    done = subprocess.run([sys.executable, "-c", SERVES.format(role=role)], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
