"""Is this drone the one that its state store was made by, or a copy of it?

Asked by `plane.drone.server` at its start; the identity is sent to controllers, which refuse a second drone of the
same name while the first one is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Machine", "identity_facts"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the drone runs. ``store``: device and inode of its state store; a copy of the file has others."""

    machine_id: str
    boot_id: str
    store: str


def identity_facts(
    stored: Mapping[str, str], machine: Machine, *, clock_continues: bool, random_id: Callable[[], str]
) -> dict[str, str]:
    """Return the facts to store: ``instance`` and ``clock`` are random ids that stay while they mean the same thing.

    An instance is one store on one machine since its boot: a store that was copied, or is used on another machine, is
    another instance. A clock stays until it begins anew.
    """
    where = {"machine_id": machine.machine_id, "boot_id": machine.boot_id, "store": machine.store}
    same = all(stored.get(name) == value for name, value in where.items())
    instance = stored.get("instance") if same else None
    clock = stored.get("clock") if same and clock_continues else None
    return {**where, "instance": instance or random_id(), "clock": clock or random_id()}
