"""Read the identity of this drone's machine and state store, and store the drone's random ids.

`plane.decisions.drones.identity` decides whether a drone is the same as before.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

import structlog

from plane.decisions.drones.identity import Machine, identity_facts
from plane.drone.clock import BOOT_ID
from plane.drone.state_store import StateStore
from plane.protocol.handshake import DroneIdentity

__all__ = ["drone_identity", "this_machine"]

# The files of systemd and D-Bus; see machine-id(5).
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
RANDOM_BYTES = 16

log = structlog.get_logger("plane.drone")


def this_machine(db: Path | None) -> Machine:
    """Return this machine, and which file its drone's state store is.

    Args:
        db: path of the state store; None: in memory.
    """
    return Machine(_machine_id(), BOOT_ID.read_text().strip(), _file_id(db))


async def drone_identity(store: StateStore, machine: Machine, *, clock_continues: bool) -> DroneIdentity:
    """Return the identity of a drone, and store what it consists of."""
    facts = identity_facts(
        await store.facts(),
        machine,
        clock_continues=clock_continues,
        random_id=lambda: secrets.token_hex(RANDOM_BYTES),
    )
    try:
        await store.store_facts(facts)
    except sqlite3.Error as error:
        # Backends must be adopted on a full disk too. The next start will be another instance.
        log.warning("drone identity not persisted", error=str(error))
    return DroneIdentity(facts["instance"], facts["clock"], facts["boot_id"], facts["machine_id"])


def _machine_id() -> str:
    for path in MACHINE_IDS:
        try:
            return path.read_text().strip()
        except OSError:
            continue
    return ""


def _file_id(db: Path | None) -> str:
    if db is None:
        return ""
    status = db.stat()
    return f"{status.st_dev}:{status.st_ino}"
