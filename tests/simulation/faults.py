"""Faults of a simulated cluster: a seed draws them in advance, so that a run can leave some of them out.

Of a drone and its watchdog only one is stopped at a time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from simulation.controller import Controllers
from simulation.database import DatabaseModel, Mutations
from simulation.machine import Machine
from simulation.world import World

__all__ = ["Fault", "plan", "simulate"]

MACHINES = 5
KEYS = 6
FAULT_EVERY_S = 12.0
DURATION_S = 900.0
# Being cut off and a step of the database's clock happen twice as often as the others.
KINDS = (
    *("stop drone", "stop watchdog", "kill drone", "lose store", "reboot", "cut off", "cut off"),
    *("step database clock", "step database clock", "fail over", "step time of day"),
)
DATABASE_STEPS_S = (-3600.0, -35.0, 35.0, 130.0, 3600.0)
TIME_OF_DAY_STEPS_S = (-100.0, -30.0, 30.0, 100.0)
LAGS_S = (0.0, 1.0, 3.0)
LONGEST_S = 120.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a moment. ``amount``: how long it lasts, or how far a clock steps or a standby lags (s)."""

    at: float
    kind: str
    machine: int
    amount: float


def plan(seed: int, *, duration_s: float = DURATION_S) -> list[Fault]:
    """Return the faults that a seed draws."""
    # Not the randomness of the world, which depends on what happens in it.
    chance = random.Random(f"faults of {seed}")
    amounts = {"step database clock": DATABASE_STEPS_S, "fail over": LAGS_S, "step time of day": TIME_OF_DAY_STEPS_S}
    faults, at = [], FAULT_EVERY_S * chance.random()
    while at < duration_s:
        kind = chance.choice(KINDS)
        amount = chance.choice(amounts[kind]) if kind in amounts else LONGEST_S * chance.random()
        faults.append(Fault(at, kind, chance.randrange(MACHINES), amount))
        at += FAULT_EVERY_S
    return faults


def simulate(
    seed: int,
    mutations: Mutations = Mutations(),  # noqa: B008
    *,
    faults: Sequence[Fault] | None = None,
    duration_s: float = DURATION_S,
) -> World:
    """Run a cluster under faults, by default those that the seed draws, and return its world.

    Raises:
        Violation: a guarantee was broken.
    """
    world = World(seed)
    db = DatabaseModel(world, mutations)
    controllers = Controllers(world, db, mutations, count=3)
    machines = []
    for number in range(MACHINES):
        rate = world.random.choice((0.92, 0.99, 1.0, 1.01, 1.08))
        machine = Machine(str(number + 1), world, controllers, mutations, rate)
        controllers.add(machine)
        machines.append(machine)

    def clients() -> None:
        # Two clients often want the same key at the same time.
        key = f"k{world.random.randrange(KEYS)}"
        controllers.connect(key)
        world.after(0.03 * world.random.random(), lambda: controllers.connect(key))

    def carry_out(fault: Fault) -> None:
        world.after(fault.at, lambda: begin(fault, world, db, machines[fault.machine]))

    world.every(0.5, clients)
    for fault in plan(seed, duration_s=duration_s) if faults is None else faults:
        carry_out(fault)
    world.run(duration_s)
    return world


def begin(fault: Fault, world: World, db: DatabaseModel, machine: Machine) -> None:
    """Let one thing go wrong."""
    amount = fault.amount
    match fault.kind:
        case "stop drone":
            machine.stop_drone(amount)
        case "stop watchdog":
            machine.stop_watchdog(amount)
        case "kill drone":
            machine.kill_drone(amount)
        case "lose store":
            machine.lose_store()
        case "reboot":
            machine.reboot(amount)
        case "cut off":
            world.tell(f"{machine.name} is cut off for {amount:.0f} s")
            machine.reachable = False

            def heal() -> None:
                machine.reachable = True

            world.after(amount, heal)
        case "step database clock":
            world.tell(f"the database's clock steps by {amount:.0f} s")
            db.step_clock(amount)
        case "fail over":
            world.tell(f"the database fails over to a standby that lags by {amount:.0f} s")
            db.fail_over(amount)
        case "step time of day":
            machine.step_time_of_day(amount)
