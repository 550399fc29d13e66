"""The rows about two controllers: how much more they answer than one.

On a machine with two cores PostgreSQL, drones and clients need what a second controller would. So there are two rows:
one with all that there is, and one in which each controller is held to a small share of a core, so that there is room
for the second, and what is seen is whether the program keeps one from helping the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.controller_load import CLIENTS, ROUNDS, Bench, controller, median, rate, row
from bench.load import HttpClient
from bench.processes import Server
from plane.protocol.spawn import ResourceLimits
from plane.random_ids import random_name
from plane.runtime.process.cgroups import Cgroups

__all__ = ["limited_pair", "pair"]

# Of a core, each. The period is short, so that a controller which has used its share is soon heard of again.
SHARE_PERCENT = 20
PERIOD_US = 10_000


async def pair(bench: Bench, url: str, folder: Path) -> None:
    """The running controller, and another beside it."""
    half = CLIENTS // 2
    async with controller(url, folder) as other:
        ratio = await _ratio(bench, bench.http, [*bench.http[:half], *await _clients(other, half)])
    row("two controllers on two cores to one, existing key", f"{ratio:.1f} times", must="1.6", aim="1.9")


async def limited_pair(bench: Bench, url: str, folder: Path) -> None:
    """Two that may each use a share of a core; where no control groups can be made there is no such row.

    Each has as many clients as the one: a controller with half of them makes smaller batches, which cost more each.
    """
    groups = Cgroups.detect()
    if groups is None:
        print("(no control groups can be made here: two controllers with a share of a core each are not measured)")
        return
    async with _limited(groups, url, folder) as one, _limited(groups, url, folder) as other:
        first, second = await _clients(one, CLIENTS), await _clients(other, CLIENTS)
        ratio = await _ratio(bench, first, [*first, *second])
    name = f"two controllers to one, existing key, each with {CLIENTS} clients and {SHARE_PERCENT} % of a core"
    row(name, f"{ratio:.1f} times", must="1.6", aim="1.9")


@asynccontextmanager
async def _limited(groups: Cgroups, url: str, folder: Path) -> AsyncIterator[Server]:
    limits = ResourceLimits(cpu_period=PERIOD_US, cpu_period_percent=SHARE_PERCENT)
    group = groups.create(f"bench-{random_name()}", limits)
    try:
        async with controller(url, folder) as server:
            for path in group.paths.values():
                (path / "cgroup.procs").write_text(str(server.pid))
            yield server
    finally:
        group.remove()


async def _clients(server: Server, count: int) -> list[HttpClient]:
    return [await HttpClient.open("127.0.0.1", server.port) for _ in range(count)]


async def _ratio(bench: Bench, one: list[HttpClient], two: list[HttpClient]) -> float:
    """What the clients of two controllers get done to what those of one do."""
    before = bench.http
    ratios = []
    for _ in range(ROUNDS):
        rates = []
        for bench.http in (one, two):
            rates.append(await rate(len(bench.http), bench.held_key))
        ratios.append(rates[1] / rates[0])
    bench.http = before
    return median(ratios)
