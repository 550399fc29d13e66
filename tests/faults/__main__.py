"""``python -m faults``: runs a cluster under faults in namespaces of its own, and ends with what its history shows."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from faults.checker.guarantees import check
from faults.checker.violation import excerpt
from faults.figures import markdown
from faults.history import read_history
from faults.schedule import ROUND_S
from faults.timeline import timeline

NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
INSIDE = "--inside-namespaces"


def main() -> None:
    """Run, or check a history that was recorded."""
    arguments = _arguments()
    if arguments.history:
        status = max(report(path) for path in arguments.history)
        print(markdown([read_history(path) for path in arguments.history]))
        sys.exit(status)
    if not arguments.inside_namespaces:
        if os.geteuid() != 0:
            sys.exit("faults need root: hosts are namespaces")
        folder = arguments.folder or Path(tempfile.mkdtemp(prefix="plane-faults-"))
        # PostgreSQL runs as another user, and must get through.
        folder.chmod(0o755)
        own = [sys.executable, "-m", "faults", *sys.argv[1:], "--folder", str(folder), INSIDE]
        os.execvp("unshare", ["unshare", *NAMESPACES, *own])
    # Imported only where it runs: checking a history needs no PostgreSQL and no network.
    from faults.run import COUNTS, Options, run

    rounds = (
        arguments.rounds if arguments.minutes is None else max(1, round(arguments.minutes * 60 / arguments.round_s))
    )
    kinds, roles = tuple(arguments.kind), tuple(arguments.role)
    options = Options(
        arguments.folder,
        arguments.seed,
        rounds,
        arguments.planted,
        kinds,
        roles,
        long=arguments.long,
        churn=arguments.churn,
        round_s=arguments.round_s,
        counts={**COUNTS, "docker": COUNTS["docker"] if with_docker(unwanted=arguments.without_docker) else 0},
    )
    print(f"seed {options.seed}, {rounds} rounds, in {options.folder}", flush=True)
    asyncio.run(run(options))
    sys.exit(report(options.folder / "history.jsonl"))


def with_docker(*, unwanted: bool) -> bool:
    """Return whether the run has a Docker drone. Under CI it must, unless it is unwanted."""
    if unwanted:
        return False
    if shutil.which("dockerd") and shutil.which("docker"):
        return True
    text = "dockerd is missing (on Debian: docker.io)"
    if os.environ.get("CI"):
        sys.exit(text)
    print(f"{text}: this run has no Docker drone")
    return False


def report(path: Path) -> int:
    """Print what a history shows; returns the exit status."""
    history = read_history(path)
    violations = check(history)
    print(f"{len(history.faults)} faults, {len(history.lives)} processes, {len(history.operations)} operations")
    page = path.with_name("timeline.html")
    page.write_text(timeline(history, violations))
    for violation in violations[:10]:
        print(f"guarantee {violation.guarantee} is violated: {violation.text}")
    if violations:
        for record in excerpt(history, violations[0]):
            print(f"  {record.at:9.3f} s  {record}")
        print(f"seed {history.end.seed if history.end else '?'}; history: {path}; timeline: {page}")
    else:
        print("no violation")
    return 1 if violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of one to three faults")
    parser.add_argument("--minutes", type=float, help="instead of rounds")
    parser.add_argument(
        "--round-s", type=float, default=ROUND_S, help="from one round to the next (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides the faults and what clients do")
    parser.add_argument("--kind", action="append", default=[], help="only faults of this kind; may be repeated")
    parser.add_argument("--role", action="append", default=[], help="only at these: drone, drone-1, …; may be repeated")
    parser.add_argument("--long", action="store_true", help="each fault may last as long as its kind does at most")
    parser.add_argument("--churn", action="store_true", help="clients terminate as often as they connect")
    parser.add_argument("--without-docker", action="store_true", help="no Docker drone")
    parser.add_argument("--planted", default="", help="a planted bug, which the history must show")
    parser.add_argument("--folder", type=Path, help="for the history and the logs; default: a new one")
    parser.add_argument("--history", type=Path, nargs="+", help="check these histories instead of running")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
