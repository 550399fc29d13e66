"""Prints the results of commands: aligned tables for people, JSON for programs.

Colours are used on a terminal without ``NO_COLOR``. Output into a pipe is never cut or wrapped.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from plane.decisions.terminal_text import plain_line
from plane.protocol import codec

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

    from plane.protocol.backend_state import BackendStatus, BackendStatusStreamEntry
    from plane.protocol.keys import KeyConfig
    from plane.protocol.times import DbTime

__all__ = [
    "AsJson",
    "columns",
    "console",
    "duration",
    "entry_text",
    "fields",
    "key_text",
    "print_json",
    "print_line",
    "show",
    "status_text",
    "table",
    "time_text",
]

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]

# Wider than any table, so that nothing is wrapped for a pipe.
PIPE_WIDTH = 10_000

# By status.
_STYLES = {"ready": "green", "terminating": "yellow", "hard-terminating": "red", "terminated": "dim"}


def console() -> Console:
    """Return the console of stdout."""
    from plane.cli.plain_console import PlainConsole

    return PlainConsole(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_json(value: Any) -> None:
    """Print ``value`` as one line of JSON."""
    sys.stdout.write(codec.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    """Print one line without colours, at once."""
    sys.stdout.write(plain_line(text) + "\n")
    sys.stdout.flush()


def show(part: Table | Group) -> None:
    """Print tables. Without a terminal, no line ends in spaces."""
    out = console()
    if out.is_terminal:
        out.print(part)
        return
    with out.capture() as printed:
        out.print(part)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    sys.stdout.flush()


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return aligned columns; None is shown as a dash. Cells may have rich's markup: escape foreign text."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def columns(named: Sequence[tuple[str, Sequence[Any]]], *, only_if_different: Sequence[str]) -> Table:
    """Return a table of columns, without those of ``only_if_different`` whose cells are all the same."""
    shown = [(name, cells) for name, cells in named if name not in only_if_different or len(set(cells)) > 1]
    return table([name for name, _ in shown], zip(*(cells for _, cells in shown), strict=True))


def fields(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values, one pair per line."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, _cell(value))
    return made


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def duration(seconds: float | None) -> str | None:
    """Return a rounded duration: ``42 s``, ``5 min``, ``3 h``, ``2 d``."""
    if seconds is None:
        return None
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"


def time_text(time: DbTime) -> str:
    """Return a time of the database's clock, in UTC, to the second."""
    return datetime.datetime.fromtimestamp(time.ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def status_text(status: BackendStatus) -> str:
    """Return a status in its colour."""
    style = _STYLES.get(status, "cyan")
    return f"[{style}]{status}[/{style}]"


def key_text(key: KeyConfig | None) -> str | None:
    """Return ``namespace/name``, or the name alone."""
    if key is None:
        return None
    from rich.markup import escape

    return escape(plain_line(f"{key.namespace}/{key.name}" if key.namespace else key.name))


def entry_text(entry: BackendStatusStreamEntry) -> str:
    """Return a state as one line, with the cause of its end."""
    from rich.markup import escape

    causes = [str(part) for part in (entry.termination_kind, entry.termination_reason) if isinstance(part, str)]
    if entry.exit_error is True:
        causes.append("exit error")
    if isinstance(entry.message, str):
        causes.append(entry.message)
    suffix = f"  {escape(', '.join(causes))}" if causes else ""
    return f"{time_text(entry.time)}  {status_text(entry.status)}{suffix}"
