"""Decide whether a drone is the one that created its state store, or uses a copy of the store.

Called by `plane.drone.machine_identity` when a drone starts. The drone sends its identity to controllers, which refuse
a second drone with the same name while the first one is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Machine", "identity_facts"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a drone, and its state store.

    Attributes:
        store: device and inode of the state store, which differ for a copy of the file; empty without a file.
    """

    machine_id: str
    boot_id: str
    store: str


def identity_facts(
    stored: Mapping[str, str], machine: Machine, *, clock_continues: bool, random_id: Callable[[], str]
) -> dict[str, str]:
    """Return the facts to store. ``instance`` and ``clock`` are random ids, renewed when they no longer apply.

    An instance is one store on one machine since its boot: a store that was copied, or is used on another machine, is
    another instance. The clock's id lasts until the clock begins anew.
    """
    where = {"machine_id": machine.machine_id, "boot_id": machine.boot_id, "store": machine.store}
    same = all(stored.get(name) == value for name, value in where.items())
    instance = stored.get("instance") if same else None
    clock = stored.get("clock") if same and clock_continues else None
    return {**where, "instance": instance or random_id(), "clock": clock or random_id()}
