"""``python -m faults.planted [BUG…]``: each planted bug is found, by the history of a run or by the simulation.

A hunt draws the faults that the bug's rule is for. The bugs themselves are in `faults.injected.planted_bugs`, and in
`simulation.database.Mutations`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from faults.injected.planted_bugs import PLANTED
from simulation.database import Mutations
from simulation.faults import simulate
from simulation.world import Violation

__all__ = ["HUNTS", "SIMULATED", "found_by_histories", "found_by_simulation"]

SEEDS = 3
RUN_TIMEOUT_S = 900.0
SIMULATION_SEEDS = 400


@dataclass(frozen=True)
class Hunt:
    """A run that finds a bug: its rounds, and the faults that it draws."""

    rounds: int
    options: tuple[str, ...]


AT_TWO_DRONES = ("--role", "drone-1", "--role", "drone-2", "--long", "--churn")
HUNTS = {
    "watchdog off": Hunt(8, ("--kind", "program stopped", "--role", "drone", "--long")),
    "acknowledgement before the commit": Hunt(8, ("--kind", "program killed", "--role", "controller")),
    "route kept after its removal": Hunt(2, ("--kind", "program restarted", "--role", "drone")),
    "event dropped when an inbox is full": Hunt(6, ("--kind", "program restarted", "--role", "drone")),
    "adoption of a foreign process": Hunt(5, ("--kind", "drone cloned")),
    "port given twice": Hunt(2, ("--kind", "program restarted", "--role", "drone", "--churn")),
    # A drone receives orders, and its states do not arrive.
    "replay by timestamp": Hunt(
        8, ("--kind", "clock jumps to and fro", "--kind", "nothing leaves host", *AT_TWO_DRONES)
    ),
    "reaper that forgets the action": Hunt(3, ("--kind", "store lost")),
}
# Bugs that the simulation has, by the name of the mutation.
SIMULATED = {
    "watchdog off": "watchdog_off",
    "token not compared": "tokens_by_time_only",
    "renewal accepted after expiry": "renewal_after_expiry",
    "expired key taken without deleting its row": "expired_key_overwritten",
    "order accepted from another clock": "foreign_orders_accepted",
}


def found_by_histories(bug: str, folder: Path, seed: int = 1) -> str | None:
    """Run with a planted bug; return the violation that the history shows, or None."""
    hunt = HUNTS[bug]
    # PostgreSQL runs as another user, and must get through.
    folder.chmod(0o755)
    for attempt in range(SEEDS):
        own = folder / f"seed-{seed + attempt}"
        own.mkdir(parents=True)
        command = [sys.executable, "-m", "faults", "--rounds", str(hunt.rounds), "--seed", str(seed + attempt)]
        done = subprocess.run(
            [*command, *hunt.options, "--without-docker", "--planted", bug, "--folder", str(own)],
            check=False,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        violations = [line for line in done.stdout.splitlines() if " is violated: " in line]
        if violations:
            return violations[0]
        if "no violation" not in done.stdout:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    return None


def found_by_simulation(bug: str) -> str | None:
    """Simulate with a planted bug; return the violation, or None."""
    mutations = Mutations(**{SIMULATED[bug]: True})
    for seed in range(SIMULATION_SEEDS):
        try:
            simulate(seed, mutations)
        except Violation as violation:
            return str(violation).partition("\n")[0]
    return None


def main() -> None:
    """Hunt for the bugs that are named, or for all."""
    missed = []
    for bug in sys.argv[1:] or sorted({*HUNTS, *SIMULATED}):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="plane-planted-") as folder:
            found = found_by_simulation(bug) if bug in SIMULATED else found_by_histories(bug, Path(folder))
        print(f"{bug}: {found or 'NOT FOUND'} ({time.monotonic() - began:.0f} s)", flush=True)
        if found is None:
            missed.append(bug)
    sys.exit(f"not found: {', '.join(missed)}" if missed else None)


assert set(HUNTS) == set(PLANTED)

if __name__ == "__main__":
    main()
