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

__all__ = ["drone_identity"]

# The files of systemd and D-Bus; see machine-id(5).
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
RANDOM_BYTES = 16

log = structlog.get_logger("plane.drone")


async def drone_identity(store: StateStore, db: Path | None, *, clock_continues: bool) -> tuple[DroneIdentity, bool]:
    """Return the identity of a drone, and whether another instance used its state store before.

    Args:
        db: path of ``store``; None: in memory.
    """
    stored = await store.facts()
    facts = identity_facts(
        stored,
        Machine(_machine_id(), BOOT_ID.read_text().strip(), _file_id(db)),
        clock_continues=clock_continues,
        random_id=lambda: secrets.token_hex(RANDOM_BYTES),
    )
    try:
        await store.store_facts(facts)
    except sqlite3.Error as error:
        # Backends must be adopted on a full disk too. The next start will be another instance.
        log.warning("drone identity not persisted", error=str(error))
    identity = DroneIdentity(facts["instance"], facts["clock"], facts["boot_id"], facts["machine_id"])
    return identity, stored.get("instance", identity.instance) != identity.instance


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
