"""What the event feed costs: ``python -m bench.event_feed``.

Connects with and without the trigger that writes the events of backends, in turns on one database. CPU time of the
controller and of all of PostgreSQL per connect, until the drones' last report of each backend is stored; on a busy
machine it moves much less than rates do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.controller import loaded
from bench.controller_load import CLIENTS, ROUNDS, Bench, cost_us, median, row
from bench.processes import run_benchmark, within
from plane.database.embedded.server import embedded_postgres

LIMIT_S = 300.0
PARTS = ("controller", "PostgreSQL")


async def compare(bench: Bench, name: str, work: Callable[[int], Awaitable[object]], count: int, must: str) -> None:
    added: list[tuple[float, float]] = []
    plain: list[float] = []
    for number in range(2 * ROUNDS):
        found: dict[str, tuple[float, float]] = {}
        # Which of the two comes first changes in each round.
        for state in ("ENABLE", "DISABLE") if number % 2 else ("DISABLE", "ENABLE"):
            await bench.sql[0].execute(f"ALTER TABLE backend_state {state} TRIGGER plane_events")
            found[state] = await cost_us(bench, work, count)
        added.append((found["ENABLE"][0] - found["DISABLE"][0], found["ENABLE"][1] - found["DISABLE"][1]))
        plain.append(sum(found["DISABLE"]))
    share = median([sum(each) for each in added]) / median(plain) * 100
    parts = ", ".join(f"{part} {median([each[n] for each in added]):+.0f} us" for n, part in enumerate(PARTS))
    row(
        f"event feed, {name}: CPU time per connect",
        f"{share:+.1f} % of {median(plain):.0f} us ({parts})",
        must=must,
        aim="",
    )


async def measure(folder: Path) -> None:
    """Start everything, and print the rows.

    Raises:
        BenchFailed: something does not run, or takes too long.
    """
    async with (
        embedded_postgres(folder / "postgres") as url,
        loaded(url, folder) as (bench, _),
        within(LIMIT_S, "measuring the event feed"),
    ):
        for number in range(CLIENTS):
            await bench.held_key(number)
        await compare(bench, "new key", bench.new_key, 1_500, "+ 5 %")
        await compare(bench, "existing key", bench.held_key, 10_000, "+ 1 %")


def main() -> None:
    """Entry point."""
    run_benchmark(measure)


if __name__ == "__main__":
    main()
