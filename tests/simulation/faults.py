"""Draws faults: what goes wrong, where and when. Of a drone and its watchdog only one is stopped at a time."""

from __future__ import annotations

from simulation.controller import Controllers
from simulation.database import DatabaseModel, Mutations
from simulation.machine import Machine
from simulation.world import World

__all__ = ["simulate"]

MACHINES = 5
KEYS = 6
FAULT_EVERY_S = 12.0


def simulate(seed: int, mutations: Mutations = Mutations(), *, duration_s: float = 900.0) -> World:  # noqa: B008
    """Run a cluster under faults, and return its world.

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

    world.every(0.5, clients)
    world.every(FAULT_EVERY_S, lambda: draw(world, db, machines))
    world.run(duration_s)
    return world


def draw(world: World, db: DatabaseModel, machines: list[Machine]) -> None:
    """Let one thing go wrong."""
    machine = world.random.choice(machines)
    length_s = 120 * world.random.random()
    match world.random.randrange(11):
        case 0:
            machine.stop_drone(length_s)
        case 1:
            machine.stop_watchdog(length_s)
        case 2:
            machine.kill_drone(length_s)
        case 3:
            machine.lose_store()
        case 4:
            machine.reboot(length_s)
        case 5 | 6:
            world.tell(f"{machine.name} is cut off for {length_s:.0f} s")
            machine.reachable = False

            def heal() -> None:
                machine.reachable = True

            world.after(length_s, heal)
        case 7 | 8:
            step_s = world.random.choice((-3600.0, -35.0, 35.0, 130.0, 3600.0))
            world.tell(f"the database's clock steps by {step_s:.0f} s")
            db.step_clock(step_s)
        case 9:
            lag_s = world.random.choice((0.0, 1.0, 3.0))
            world.tell(f"the database fails over to a standby that lags by {lag_s:.0f} s")
            db.fail_over(lag_s)
        case 10:
            machine.step_time_of_day(world.random.choice((-100.0, -30.0, 30.0, 100.0)))
