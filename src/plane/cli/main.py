"""The program `plane`: its commands, and what becomes of their errors.

Exit status: 0 done, 1 could not (the error says why and what to do), 2 malformed flags.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Group

from plane.cli.api_key import api_key
from plane.cli.completion import completion
from plane.cli.controller import controller
from plane.cli.dev import dev
from plane.cli.dns import dns
from plane.cli.drone import drone
from plane.cli.executor import executor
from plane.cli.logs import print_uncaught
from plane.cli.migrate import migrate
from plane.cli.proxy import proxy
from plane.cli.run_config import run_config
from plane.cli.version import version, version_text
from plane.decisions.redaction import redacted
from plane.protocol.errors import PlaneError

__all__ = ["COMMANDS", "database_main", "main", "make_program", "options_last"]

# Each loads what it needs when it runs, so that `plane version` does not wait for aiohttp.
RUN: tuple[Callable[..., None], ...] = (dev, controller, drone, proxy, dns, executor, run_config)
SET_UP: tuple[Callable[..., None], ...] = (migrate, api_key, completion, version)
COMMANDS = (*RUN, *SET_UP)
GROUPS = {
    "admin": "Ask a controller, and tell it what to do.",
    "db": "Look into Plane's database, and mend it, without a controller.",
}
# Options that scripts written for the original give before a group's command, and that have a value.
_GROUP_OPTIONS = ("--controller", "--db")


def make_program() -> App:
    """The program with all its commands."""
    set_up = Group("Set up", sort_key=3)
    program = App(
        name="plane",
        help="A distributed hash map whose values are running processes. To try it: plane dev",
        version=version_text,
        exit_on_error=False,
        group_commands=set_up,
    )
    for commands, group in ((RUN, Group("Run", sort_key=1)), (SET_UP, set_up)):
        for place, command in enumerate(commands):
            program.command(command, group=group, sort_key=place)
    operation = Group("Operate", sort_key=2)
    for name, help_text in GROUPS.items():
        program.command(f"plane.cli.{name}.program:{name}", name=name, help=help_text, group=operation)
    return program


def options_last(arguments: Sequence[str]) -> list[str]:
    """``admin --controller URL status`` as ``admin status --controller URL``: every command has its group's options."""
    if not arguments or arguments[0] not in GROUPS:
        return list(arguments)
    group, *rest = arguments
    moved: list[str] = []
    while rest and rest[0].startswith(_GROUP_OPTIONS):
        option = rest.pop(0)
        moved.append(option)
        if "=" not in option and rest:
            moved.append(rest.pop(0))
    return [group, *rest[:1], *moved, *rest[1:]]


def main() -> None:
    """Entry point of the program."""
    _run(sys.argv[1:])


def database_main() -> None:
    """Entry point of `plane-db`, which is `plane db`."""
    _run(["db", *sys.argv[1:]])


def _run(arguments: Sequence[str]) -> None:
    sys.excepthook = print_uncaught
    try:
        make_program()(options_last(arguments))
    except CycloptsError:
        sys.exit(2)
    except PlaneError as error:
        print(f"plane: {redacted(str(error))}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` does. Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
