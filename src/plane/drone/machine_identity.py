"""Reads which machine and which state store this drone has, and keeps its random ids in the store.

What makes a drone the same again is decided in `plane.decisions.drones.identity`.
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

# Where systemd and D-Bus keep it; see machine-id(5).
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
RANDOM_BYTES = 16

log = structlog.get_logger("plane.drone")


async def drone_identity(store: StateStore, db: Path | None, *, clock_continues: bool) -> tuple[DroneIdentity, bool]:
    """Return the identity of the drone whose state store is ``store``, at the path ``db``.

    And whether it is another instance than the one that used the store before.
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
        # Backends must be adopted also on a full disk. The next start is another instance then.
        log.warning("the drone's identity is not stored", error=str(error))
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
