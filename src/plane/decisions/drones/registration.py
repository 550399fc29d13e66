"""May this drone have its name, and are the orders that wait for it still meant for it?

A name is a drone's address: its backends, orders and leases belong to it. A cloned machine image copies the name, and
with one name two drones would run one backend. Asked by `plane.controller.nodes.drone` when a drone connects.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.protocol.handshake import DroneIdentity
from plane.timing import UNHEALTHY_AFTER_S

__all__ = ["RegisteredDrone", "may_register", "orders_are_void", "refusal"]


@dataclass(frozen=True, slots=True)
class RegisteredDrone:
    """The drone that was registered last under a name.

    Attributes:
        identity: None: it is an original, which has none.
        silent_s: since its last heartbeat; None: there was none.
        disconnected: its connection has ended, or the controller that had it is dead.
    """

    identity: DroneIdentity | None
    silent_s: float | None
    disconnected: bool


def may_register(new: DroneIdentity | None, known: RegisteredDrone | None) -> bool:
    """Whether the name is for ``new``; originals, which have no identity, take it from each other at any time.

    The same machine's drone may come back as soon as its former connection has ended. Another one may once the former
    has been silent for so long that it is not counted on any more.
    """
    if new is None or known is None or known.identity is None:
        return True
    if known.silent_s is None or known.silent_s >= UNHEALTHY_AFTER_S:
        return True
    former = known.identity
    same_boot = (new.machine_id, new.boot_id) == (former.machine_id, former.boot_id)
    if new.instance == former.instance:
        # With another boot it is this machine after a restart, or a copy of its disk: the connection tells.
        return same_boot or known.disconnected
    return same_boot and bool(new.boot_id) and known.disconnected


def orders_are_void(new: DroneIdentity | None, known: RegisteredDrone | None) -> bool:
    """Whether orders to spawn that wait for the drone are void: their deadlines are of another clock, or store."""
    if new is None or known is None or known.identity is None:
        return False
    return (new.instance, new.clock) != (known.identity.instance, known.identity.clock)


def refusal(name: str) -> str:
    """What the operator of a refused drone has to know, short enough for a WebSocket's close frame."""
    return f"another drone named {name} is connected; give each its own --name, or stop that one"
