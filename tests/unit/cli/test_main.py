"""The program's first screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


# Runs the program with a command of the test's own.
COMMAND = """
import os, sys
from unittest import mock
from plane.cli import main

class Program:
    help_flags = ()

    def __call__(self, _):
        {code}

sys.argv = ["plane", "command"]
with mock.patch.object(main, "make_program", Program):
    main.main()
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_of_a_program_gets_the_number_of_a_standard_file_that_is_closed(closed: str) -> None:
    code = "print('to stdout'), print('to stderr', file=sys.stderr), sys.exit(os.open('/dev/null', os.O_RDONLY))"
    run = [sys.executable, "-c", COMMAND.format(code=code)]
    assert subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *run], check=False).returncode == 3


@pytest.mark.parametrize("code", ["print('x')", "print('x', flush=True)"])
def test_an_output_that_cannot_be_written_is_an_error_in_one_line(code: str) -> None:
    with Path("/dev/full").open("w") as full:
        run = [sys.executable, "-c", COMMAND.format(code=code)]
        done = subprocess.run(run, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    message = "plane: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_a_reader_that_wants_no_more_is_no_error_to_report() -> None:
    run = [sys.executable, "-c", COMMAND.format(code="print('x')")]
    read, write = os.pipe()
    os.close(read)
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(run, check=False, stdout=write, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


INTERRUPTED = """
import sys
from plane.cli.main import main

class Interrupt:
    def find_spec(self, name, *_):
        if name == "{module}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.argv = ["plane", "completion", "bash"]
main()
"""


@pytest.mark.parametrize("module", ["cyclopts", "plane.protocol.errors", "plane.cli.completion"])
def test_ctrl_c_during_an_import_is_silent(module: str) -> None:
    run = [sys.executable, "-c", INTERRUPTED.format(module=module)]
    done = subprocess.run(run, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
