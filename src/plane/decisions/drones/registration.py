"""Decide whether a drone may register under its name, and whether pending orders are still meant for it.

A drone's backends, orders and leases belong to its name. A cloned machine image copies the name, and two drones with
one name would run the same backend twice. Called by `plane.database.nodes` when a drone connects.
"""

from __future__ import annotations

from dataclasses import dataclass

from plane.protocol.handshake import DroneIdentity
from plane.timing import UNHEALTHY_AFTER_S

__all__ = ["RegisteredDrone", "may_register", "orders_are_void", "refusal_message"]


@dataclass(frozen=True, slots=True)
class RegisteredDrone:
    """The drone that was registered last under a name.

    Attributes:
        identity: None: it is an original drone, which has no identity.
        silent_s: seconds since its last heartbeat; None: there was none.
        disconnected: whether its connection has ended, or the controller that had it is dead.
    """

    identity: DroneIdentity | None
    silent_s: float | None
    disconnected: bool


def may_register(new: DroneIdentity | None, known: RegisteredDrone | None) -> bool:
    """Return whether a drone may register under the name that ``known`` has.

    Original drones, which have no identity, may always take over a name. A drone of the same machine may register again
    as soon as its former connection has ended. Any other drone may once the known one has been silent for
    `UNHEALTHY_AFTER_S`.
    """
    if new is None or known is None or known.identity is None:
        return True
    if known.silent_s is None or known.silent_s >= UNHEALTHY_AFTER_S:
        return True
    former = known.identity
    same_boot = (new.machine_id, new.boot_id) == (former.machine_id, former.boot_id)
    if new.instance == former.instance:
        # After another boot this is the same machine or a copy of its disk; the end of the former connection decides.
        return same_boot or known.disconnected
    return same_boot and bool(new.boot_id) and known.disconnected


def orders_are_void(new: DroneIdentity | None, known: RegisteredDrone | None) -> bool:
    """Return whether pending spawn orders are void, because their deadlines refer to another clock or store."""
    if new is None or known is None or known.identity is None:
        return False
    return (new.instance, new.clock) != (known.identity.instance, known.identity.clock)


def refusal_message(name: str) -> str:
    """Return the message to the operator of a refused drone, short enough for the close frame of a WebSocket."""
    return f"another drone named {name} is connected; give each its own --name, or stop that one"
