"""The program `plane`: its commands, and what becomes of their errors.

Exit status: 0 done, 1 could not (the error says why and what to do), 2 malformed flags.
"""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from plane.cli.controller import controller
from plane.cli.dev import dev
from plane.cli.dns import dns
from plane.cli.drone import drone
from plane.cli.migrate import migrate
from plane.cli.proxy import proxy
from plane.cli.version import version
from plane.protocol.errors import PlaneError

__all__ = ["COMMANDS", "main", "make_program"]

# Each loads what it needs when it runs, so that `plane version` does not wait for aiohttp.
COMMANDS = (dev, controller, drone, proxy, dns, migrate, version)


def make_program() -> App:
    """The program with all its commands."""
    program = App(
        name="plane",
        help="A distributed hash map whose values are running processes.",
        version_flags=[],
        exit_on_error=False,
    )
    for command in COMMANDS:
        program.command(command)
    return program


def main() -> None:
    """Entry point of the program."""
    try:
        make_program()()
    except CycloptsError:
        sys.exit(2)
    except PlaneError as error:
        print(f"plane: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
