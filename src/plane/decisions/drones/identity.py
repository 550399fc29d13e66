"""Decide whether a drone is the one that created its state store, or uses a copy of the store.

Called by `plane.drone.machine_identity` when a drone starts. The drone sends its identity to controllers, which refuse
a second drone with the same name while the first one is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Machine", "identity_facts", "is_another_instance"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a drone, and its state store.

    Attributes:
        store: device and inode of the state store, which differ for a copy of the file; empty without a file.
    """

    machine_id: str
    boot_id: str
    store: str


def is_another_instance(stored: Mapping[str, str], machine: Machine) -> bool:
    """Return whether another instance has used the state store before: it was copied, moved or booted since.

    Its backends are then not those of this drone. Its clock does not continue either: leases that began before this
    moment belong to the other instance, which may have ended their backends since the store was copied.
    """
    return "instance" in stored and not _is_same(stored, machine)


def identity_facts(
    stored: Mapping[str, str], machine: Machine, *, clock_continues: bool, random_id: Callable[[], str]
) -> dict[str, str]:
    """Return the facts to store. ``instance`` and ``clock`` are random ids, renewed when they no longer apply.

    An instance is one store on one machine since its boot: a store that was copied, or is used on another machine, is
    another instance. The clock's id lasts until the clock starts again.
    """
    same = _is_same(stored, machine)
    instance = stored.get("instance") if same else None
    clock = stored.get("clock") if same and clock_continues else None
    return {**_where(machine), "instance": instance or random_id(), "clock": clock or random_id()}


def _is_same(stored: Mapping[str, str], machine: Machine) -> bool:
    return all(stored.get(name) == value for name, value in _where(machine).items())


def _where(machine: Machine) -> dict[str, str]:
    return {"machine_id": machine.machine_id, "boot_id": machine.boot_id, "store": machine.store}
