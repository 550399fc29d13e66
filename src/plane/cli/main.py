"""The program `plane`: its commands, and how their errors are printed.

Exit status: 0 success, 1 failure (the error gives the cause and what to do), 2 malformed flags.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from plane.protocol.errors import PlaneError

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["database_main", "main", "make_program", "options_last"]

# A command is imported from `plane.cli.NAME` when it runs, so that `plane version` imports no other command, and only
# commands that use aiohttp import it.
RUN = ("dev", "controller", "drone", "proxy", "dns", "executor", "run-config")
SET_UP = ("doctor", "migrate", "api-key", "completion", "version")
GROUPS = {
    "admin": "Inspect and operate a cluster through a controller.",
    "db": "Inspect and repair Plane's database, without a controller.",
}
# Options with a value that scripts for Plane 0.5.5 give before the command of a group.
_GROUP_OPTIONS = ("--controller", "--db")
# Groups within a group: their commands are two words.
_GROUPS_OF_GROUPS = ("webhook",)
# Objects that are created before the garbage collector runs; Python's own limit is 700.
IMPORT_GC_THRESHOLD = 50_000


def make_program() -> App:
    """Return the program with all its commands."""
    from cyclopts import App, Group

    set_up = Group("Set up", sort_key=3)
    program = App(
        name="plane",
        help="A distributed hash map whose values are running processes. To try it: plane dev",
        version=_version_text,
        exit_on_error=False,
        group_commands=set_up,
    )
    for commands, group in ((RUN, Group("Run", sort_key=1)), (SET_UP, set_up)):
        for place, command in enumerate(commands):
            function = command.replace("-", "_")
            program.command(f"plane.cli.{function}:{function}", name=command, group=group, sort_key=place)
    operation = Group("Operate", sort_key=2)
    for name, help_text in GROUPS.items():
        program.command(f"plane.cli.{name}.program:{name}", name=name, help=help_text, group=operation)
    return program


def _version_text() -> str:
    from plane.cli.version import version_text

    return version_text()


def options_last(arguments: Sequence[str]) -> list[str]:
    """Return ``admin --controller URL status`` as ``admin status --controller URL``."""
    if not arguments or arguments[0] not in GROUPS:
        return list(arguments)
    group, *rest = arguments
    moved: list[str] = []
    while rest and rest[0].startswith(_GROUP_OPTIONS):
        option = rest.pop(0)
        moved.append(option)
        if "=" not in option and rest:
            moved.append(rest.pop(0))
    words = 2 if rest and rest[0] in _GROUPS_OF_GROUPS else 1
    return [group, *rest[:words], *moved, *rest[words:]]


def main() -> None:
    """Entry point of the program."""
    _run(sys.argv[1:])


def database_main() -> None:
    """Entry point of `plane-db`, which is `plane db`."""
    _run(["db", *sys.argv[1:]])


def _run(arguments: Sequence[str]) -> None:
    if arguments in (["version"], ["--version"]):
        # The library that reads arguments takes longer to import than everything else here.
        print(_version_text())  # noqa: T201
        return
    sys.excepthook = _print_uncaught
    # Almost nothing that an import creates is garbage. `plane.cli.serving` sets this back for programs that run long.
    gc.set_threshold(IMPORT_GC_THRESHOLD)
    _import_structlog_without_rich()
    from cyclopts import CycloptsError

    try:
        program = make_program()
        if not arguments or arguments[0] in program.help_flags:
            # The list of commands shows their help, for which they must be imported.
            for command in (*RUN, *SET_UP):
                program[command]
        program(options_last(arguments))
    except CycloptsError:
        sys.exit(2)
    except PlaneError as error:
        from plane.cli.next_steps import next_step
        from plane.decisions.redaction import redacted

        print(f"plane: {redacted(str(error))}{next_step(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _import_structlog_without_rich() -> None:
    """Import structlog, which imports rich and pygments if it can.

    That takes an eighth of the start of a program, and only colored tracebacks need them. `plane.cli.logs` uses the
    plain ones, since the colored ones have the values of variables.
    """
    if "rich" in sys.modules:
        # The caller, a test for example, has imported it.
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # An import of it fails, as if it were not installed.
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from plane.cli.logs import print_uncaught

    print_uncaught(kind, error, trace)
