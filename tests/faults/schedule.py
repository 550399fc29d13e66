"""Draws the faults of a run from its seed: one to three a round.

A target has one fault at a time, and one of its clock beside that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "ROUND_S", "Kind", "PlannedFault", "draw"]

# Rounds overlap: a fault may last for longer, since a lease does.
ROUND_S = 12.0
DATABASE = "database"


@dataclass(frozen=True)
class Kind:
    """A kind of fault: whom it happens to, and for how long. One in ``RARELY_LONG`` lasts up to ``longest_s``."""

    name: str
    roles: tuple[str, ...]
    usual_s: float = 8.0
    longest_s: float = 8.0
    # Whether it is a fault of the target's time of day, which may be wrong during any other fault.
    of_clock: bool = False


RARELY_LONG = 4
DRONES = ("drone", "docker")
PROGRAMS = ("controller", *DRONES, "proxy")
KINDS = (
    Kind("program killed", PROGRAMS, 4.0, 90.0),
    Kind("program stopped", PROGRAMS, 15.0, 90.0),
    Kind("program restarted", PROGRAMS, 0.0, 0.0),
    Kind("watchdog killed", DRONES, 0.0, 0.0),
    Kind("watchdog stopped", DRONES, 10.0, 40.0),
    Kind("host cut off", (*PROGRAMS, DATABASE), 12.0, 90.0),
    Kind("two hosts cut off from each other", (*PROGRAMS, DATABASE), 15.0, 90.0),
    Kind("nothing arrives at host", PROGRAMS, 12.0, 70.0),
    Kind("nothing leaves host", PROGRAMS, 12.0, 70.0),
    Kind("packets lost", (*PROGRAMS, DATABASE), 15.0, 40.0),
    Kind("network slow", (*PROGRAMS, DATABASE), 15.0, 40.0),
    Kind("packets delayed", (*PROGRAMS, DATABASE), 15.0, 60.0),
    Kind("connections reset", (*PROGRAMS, DATABASE), 3.0, 10.0),
    Kind("connections hang", (*PROGRAMS, DATABASE), 12.0, 60.0),
    Kind("clock steps", (*PROGRAMS, DATABASE), 20.0, 60.0, of_clock=True),
    Kind("clock runs wrong", (*PROGRAMS, DATABASE), 20.0, 60.0, of_clock=True),
    Kind("clock jumps to and fro", PROGRAMS, 30.0, 120.0, of_clock=True),
    Kind("host rebooted", DRONES, 3.0, 70.0),
    Kind("store lost", DRONES, 0.0, 0.0),
    Kind("store restored from a copy", DRONES, 6.0, 40.0),
    Kind("drone cloned", ("drone",), 10.0, 30.0),
    # The name is free after 45 s, and processes of the former drone may live for 53 s.
    Kind("drone replaced", ("drone",), 90.0, 120.0),
    Kind("disk full", DRONES, 12.0, 60.0),
    Kind("disk hangs", DRONES, 12.0, 70.0),
    Kind("proxy upgraded in place", ("proxy",), 0.0, 0.0),
    Kind("drone drained", DRONES, 12.0, 40.0),
    Kind("engine restarted", ("docker",), 0.0, 0.0),
    Kind("engine killed", ("docker",), 4.0, 90.0),
    Kind("engine stopped", ("docker",), 15.0, 90.0),
    Kind("database restarted", (DATABASE,), 2.0, 2.0),
    Kind("database crashed", (DATABASE,), 2.0, 15.0),
    Kind("database stopped", (DATABASE,), 8.0, 70.0),
    Kind("database failed over", (DATABASE,), 0.0, 0.0),
)


@dataclass(frozen=True)
class PlannedFault:
    """A fault that is to happen ``start_s`` after the first round began, for ``length_s``."""

    number: int
    round: int
    kind: str
    target: str
    start_s: float
    length_s: float
    # Draws what the kind leaves open, such as how far a clock steps.
    seed: int


def draw(
    seed: int, rounds: int, targets: Sequence[str], kinds: Sequence[Kind] = KINDS, round_s: float = ROUND_S
) -> list[PlannedFault]:
    """Return the faults of a run in the order of their starts. Targets are named like ``drone-2``, or ``database``."""
    chance = random.Random(seed)
    free_at = {(name, of_clock): 0.0 for name in targets for of_clock in (False, True)}
    planned: list[PlannedFault] = []
    for number in range(rounds):
        for _ in range(chance.randint(1, 3)):
            start_s = round(round_s * (number + 0.6 * chance.random()), 2)
            kind = chance.choice(kinds)
            fit = [
                name
                for name in targets
                if name.partition("-")[0] in kind.roles and free_at[name, kind.of_clock] <= start_s
            ]
            longest_s = kind.longest_s if chance.randrange(RARELY_LONG) == 0 else kind.usual_s
            length_s = round(longest_s * chance.random(), 2)
            own_seed = chance.randrange(2**31)
            if not fit:
                continue
            target = chance.choice(fit)
            # It has a moment to recover from before the next.
            free_at[target, kind.of_clock] = start_s + length_s + 2.0
            planned.append(PlannedFault(len(planned) + 1, number + 1, kind.name, target, start_s, length_s, own_seed))
    return sorted(planned, key=lambda fault: fault.start_s)
