"""`plane admin logs`."""

from __future__ import annotations

import datetime
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from plane.cli.admin.options import DEFAULT_CONTROLLER, ControllerOptions
from plane.cli.output import AsJson, print_json
from plane.decisions.terminal_text import colored_line

if TYPE_CHECKING:
    from plane.client import OutputLine

__all__ = ["line_text", "logs"]


async def logs(
    backend: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative="")] = False,
    lines: Annotated[int, Parameter(name=("--lines", "-n"), validator=validators.Number(gte=0, lte=1_000_000))] = 1000,
    as_json: AsJson = False,
    controller: ControllerOptions = DEFAULT_CONTROLLER,
) -> None:
    """Print a backend's output with its times (UTC, by its drone's clock). It is kept for an hour after the end.

    Example: plane admin logs k6xqveyu5dhqvw -f -n 20

    Parameters
    ----------
    backend
        Name of the backend.
    follow
        Follow the output until the backend ends.
    lines
        Number of past lines.
    """
    async with controller.client() as plane:
        async for line in plane.logs(backend, tail=lines, follow=follow):
            if as_json:
                print_json(line)
            else:
                sys.stdout.write(line_text(line, on_terminal=sys.stdout.isatty()) + "\n")
                sys.stdout.flush()


def line_text(line: OutputLine, *, on_terminal: bool) -> str:
    """Return a line with its time before it. Of its control sequences a terminal gets colours only."""
    at = datetime.datetime.fromtimestamp(line.time.ms / 1000, datetime.UTC)
    text = colored_line(line.text) if on_terminal else line.text
    return f"{at:%Y-%m-%d %H:%M:%S}.{line.time.ms % 1000:03d}Z  {text}"
