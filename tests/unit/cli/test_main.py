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


# Runs the program, and prints at its end which modules it has imported of those that it must not.
RUNS = """
import sys
from plane.cli.main import main

sys.argv = ["plane", *{arguments}]
try:
    main()
finally:
    print("imported:", *sorted({unneeded} & set(sys.modules)), file=sys.stderr)
"""
LOGS = {"structlog", "uvloop"}
TABLES = {"rich", "pygments"}
CONNECTIONS = {"asyncio", "ssl", "aiohttp", "asyncpg", "plane.client"}
ARGUMENTS = {"cyclopts", "attrs"}
# It has half of the modules of the email package.
METADATA = {"importlib.metadata"}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        ("version", {*LOGS, *TABLES, *CONNECTIONS, *ARGUMENTS, *METADATA, "msgspec", "pathlib"}),
        ("completion bash", {*LOGS, *TABLES, *CONNECTIONS, *METADATA}),
        ("completion zsh", {*LOGS, *CONNECTIONS, *METADATA, "rich.markdown"}),
        ("completion fish", {*LOGS, *CONNECTIONS, *METADATA, "rich.markdown"}),
        ("--help", {*LOGS, *CONNECTIONS, *METADATA, "rich.markdown"}),
        ("admin --help", {*LOGS, *CONNECTIONS, *METADATA, "rich.markdown"}),
        ("db --help", {*LOGS, *CONNECTIONS, *METADATA, "rich.markdown"}),
        ("api-key ci", {*LOGS, *TABLES, *CONNECTIONS, *METADATA}),
        ("admin list --controller http://127.0.0.1:1", {*LOGS, *TABLES, *METADATA, "plane.cli.admin.connect"}),
        ("migrate --db postgresql://127.0.0.1:1/x", {*TABLES, *METADATA}),
        ("db list-nodes --db postgresql://127.0.0.1:1/x", {*TABLES, *METADATA}),
        ("db cleanup --db postgresql://127.0.0.1:1/x", {"pygments"}),
        ("db events --db postgresql://127.0.0.1:1/x", {"pygments"}),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: str, unneeded: set[str]) -> None:
    program = RUNS.format(arguments=arguments.split(), unneeded=unneeded)
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "imported:", done.stderr


# Instead of reading its arguments, the program imports what it would import after that.
SERVES = """
import sys
from unittest import mock
from plane.cli import main

class Program:
    help_flags = ()

    def __call__(self, _):
        import {modules}

sys.argv = ["plane", "{role}"]
with mock.patch.object(main, "make_program", Program):
    main.main()
print(sorted({unneeded} & set(sys.modules)))
import rich.console
"""
UNNEEDED = {*TABLES, *METADATA, "jinja2", "opentelemetry", "aiodocker"}


@pytest.mark.parametrize(
    ("role", "modules", "unneeded"),
    [
        ("controller", "plane.cli.serving, plane.controller.server", UNNEEDED),
        ("drone", "plane.cli.serving, plane.drone.server", UNNEEDED),
        ("executor", "plane.cli.serving, plane.executor.server", UNNEEDED),
        # Its DNS library reads the metadata of distributions.
        ("dns", "plane.cli.serving, plane.dns.server", UNNEEDED - METADATA),
        ("proxy", "plane.cli.serving, plane.proxy.server", UNNEEDED),
        ("proxy", "plane.cli.proxy_worker", UNNEEDED),
    ],
)
def test_a_program_that_serves_starts_without_what_it_may_never_need(
    role: str, modules: str, unneeded: set[str]
) -> None:
    program = SERVES.format(role=role, modules=modules, unneeded=unneeded)
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
