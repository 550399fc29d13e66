"""`plane doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from plane.cli.output import AsJson, console, print_json, show
from plane.cli.run_config import read_config
from plane.decisions.diagnosis import Finding, Status, exit_status

if TYPE_CHECKING:
    from rich.table import Table

    from plane.doctor.examination import Check

__all__ = ["doctor"]

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red", Status.SKIPPED: "dim"}


def doctor(
    *files: Path,
    db: Annotated[str | None, Parameter(env_var="DATABASE_URL")] = None,
    data_dir: Path = Path(".plane"),
    docker_socket: Path = Path("/var/run/docker.sock"),
    as_json: AsJson = False,
) -> None:
    """Check this machine, or components before and after their start, and print what to do.

    Exit status 1 if a check failed; warnings do not count.

    Examples:

    plane doctor

    plane doctor /etc/plane/drone.json /etc/plane/proxy.json

    Parameters
    ----------
    files
        Files of `plane run-config`, whose components are checked. Default: this machine, for `plane dev`.
    db
        PostgreSQL to check too, as postgresql://USER@HOST:PORT/NAME.
    data_dir
        Folder of `plane dev`, whose disk is checked.
    docker_socket
        Unix socket of the Docker engine.
    """
    import uvloop

    from plane.cli.logs import set_up_logs

    set_up_logs("error")
    sys.exit(uvloop.run(_run(files, db, data_dir, docker_socket, as_json=as_json)))


async def _run(files: tuple[Path, ...], db: str | None, data_dir: Path, docker_socket: Path, *, as_json: bool) -> int:
    from plane.doctor.examination import checks_of, checks_of_database, checks_of_machine

    parts: list[tuple[str, list[Check]]] = [(str(file), checks_of(read_config(file))) for file in files]
    if not files:
        parts.append(("this machine", checks_of_machine(data_dir, docker_socket)))
    if db is not None:
        parts.append(("--db", checks_of_database(db)))
    findings: list[Finding] = []
    rows: list[dict[str, Any]] = []
    for part, checks in parts:
        findings += await _examine(part, checks, rows, as_json=as_json)
    if as_json:
        print_json(rows)
    return exit_status(findings)


async def _examine(part: str, checks: list[Check], rows: list[dict[str, Any]], *, as_json: bool) -> list[Finding]:
    from rich.markup import escape

    from plane.doctor.examination import examine

    out = console()
    findings = []
    if not as_json:
        out.print(f"[bold]{escape(part)}[/bold]")
    async for name, finding in examine(checks):
        findings.append(finding)
        rows.append(
            {"part": part, "check": name, "status": finding.status, "found": finding.found, "advice": finding.advice}
        )
        if not as_json:
            show(_line(name, finding))
    return findings


def _line(name: str, finding: Finding) -> Table:
    from rich.markup import escape
    from rich.table import Table

    style = _STYLES[finding.status]
    line = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    line.add_column(width=8)
    line.add_column(width=22)
    line.add_column(overflow="fold")
    advice = f"\n[bold]{escape(finding.advice)}[/bold]" if finding.advice else ""
    line.add_row(f"[{style}]{finding.status}[/{style}]", escape(name), f"{escape(finding.found)}{advice}")
    return line
