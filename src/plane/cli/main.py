"""The program `plane`: its commands, and how their errors are printed.

Exit status: 0 success, 1 failure (the error gives the cause and what to do), 2 malformed flags.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["database_main", "main", "make_program", "options_last"]

# A command is imported from `plane.cli.NAME` when it runs. At its top such a module imports only what its options need,
# since completions and lists of commands import all of them. What a command needs to run (rich, structlog, the client,
# a component), its functions import.
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
# Objects that are created before the garbage collector runs; Python's own limit is 700. No program has as many when
# its imports are done.
IMPORT_GC_THRESHOLD = 200_000


def make_program() -> App:
    """Return the program with all its commands."""
    from cyclopts import App, Group, Parameter

    set_up = Group("Set up", sort_key=3)
    program = App(
        name="plane",
        help="A distributed hash map whose values are running processes. To try it: plane dev",
        version=_version_text,
        default_parameter=Parameter(show_default=_shown_default),
        exit_on_error=False,
        print_error=False,
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


def _shown_default(value: object) -> str | None:
    """Return a default as help shows it: not at all for flags, nor where the text says what happens without a value."""
    return None if value is False or value in (None, "", ()) else str(value)


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
    """Run the program until it exits. Neither Ctrl-C nor an output that cannot be written causes a traceback."""
    _open_standard_files()
    sys.excepthook = _print_uncaught
    # Almost nothing that an import creates is garbage. `plane.cli.serving` sets this back for programs that run long.
    gc.set_threshold(IMPORT_GC_THRESHOLD)
    try:
        try:
            _run_command(arguments)
        finally:
            # Python does it later, and reports errors in its own words.
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does.
        _drop_output()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        print(f"plane: the output cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
        _drop_output()
        sys.exit(1)
    finally:
        # At its exit Python would search for garbage among all objects, which takes a tenth of the time of a command.
        gc.freeze()


def _run_command(arguments: Sequence[str]) -> None:
    if arguments in (["version"], ["--version"]):
        # The library that reads arguments takes longer to import than everything else here.
        print(_version_text())  # noqa: T201
        return
    from cyclopts import CycloptsError

    from plane.protocol.errors import PlaneError

    try:
        program = make_program()
        _prepare_list_of_commands(program, arguments)
        program(options_last(arguments))
    except CycloptsError as error:
        from plane.cli.usage_errors import usage_error
        from plane.decisions.redaction import redacted

        print(f"plane: {redacted(usage_error(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except PlaneError as error:
        from plane.cli.next_steps import next_step
        from plane.decisions.redaction import redacted
        from plane.decisions.terminal_text import plain_text

        print(f"plane: {plain_text(redacted(str(error)))}{next_step(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _open_standard_files() -> None:
    """Open those of stdin, stdout and stderr that are closed, as a supervisor may start a program.

    Otherwise the first files or sockets get their numbers: uvloop aborts when it closes such a one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free is the one of this file.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _drop_output() -> None:
    """Nothing may be flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_list_of_commands(program: App, arguments: Sequence[str]) -> None:
    """If the program will print a list of commands, import these: it shows the first line of their help."""
    group, words = program, arguments
    if arguments and arguments[0] in GROUPS:
        group, words = program[arguments[0]], arguments[1:]
    if all(word in program.help_flags for word in words):
        group.resolved_commands()
        # The lines have no markup, and the library that reads Markdown takes a fifth of the time.
        group.help_format = "plaintext"


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from plane.cli.logs import print_uncaught

    print_uncaught(kind, error, trace)
