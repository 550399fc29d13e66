"""Controllers, nodes and drones. The SQL is in ``nodes.sql``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import msgspec

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.decisions.drones.registration import RegisteredDrone
from plane.protocol.control_api import ClusterState, DroneState, NodeNameOfKind, NodeState
from plane.protocol.handshake import DroneIdentity, Version
from plane.protocol.names import NodeKind
from plane.protocol.times import DroneTime
from plane.timing import UNHEALTHY_AFTER_S

__all__ = [
    "DroneHeartbeat",
    "Registration",
    "cluster_state",
    "controller_heartbeat",
    "disconnect",
    "drone_heartbeats",
    "lock_drone",
    "mark_drone_stopping",
    "ping",
    "register",
    "register_drone",
    "set_draining",
    "void_spawns",
]

# An arbitrary number that no other program on the database uses for two-part advisory locks.
NAME_LOCK = 0x504C_414E

_SQL = statements("nodes")


@dataclass(frozen=True, slots=True)
class Registration:
    """One connection of a node to this controller. ``cluster`` is None for a DNS server."""

    node_id: int
    cluster: str | None
    started_at: datetime.datetime


async def controller_heartbeat(db: Database, controller: str, version: Version, *, online: bool) -> None:
    """Store a controller's heartbeat, or (``online`` false) that it is about to stop."""
    await db.execute(_SQL["controller_heartbeat"], controller, online, version.version, version.git_hash)


async def register(
    db: Database | Transaction,
    kind: NodeKind,
    cluster: str | None,
    name: str,
    version: Version,
    controller: str,
    ip: str,
) -> Registration:
    """Store that a node has connected; ``cluster`` is None for a DNS server."""
    known = (name, version.version, version.git_hash, controller, ip)
    if cluster is None:
        rows = await db.fetch(_SQL["register_node_of_no_cluster"], str(kind), *known)
    else:
        rows = await db.fetch(_SQL["register_node"], str(kind), cluster, *known)
    return Registration(rows[0]["id"], cluster, rows[0]["last_connection_start_time"])


async def lock_drone(db: Transaction, cluster: str, name: str) -> RegisteredDrone | None:
    """Return the drone registered under a name, if any, and lock the name and the drone until the transaction ends."""
    await db.fetch(_SQL["lock_drone_name"], NAME_LOCK, cluster, name)
    rows = await db.fetch(_SQL["registered_drone"], cluster, name, UNHEALTHY_AFTER_S)
    return _registered(rows[0]) if rows else None


async def register_drone(
    db: Transaction, registration: Registration, pool: str, identity: DroneIdentity | None
) -> None:
    """Store that a registered node is a drone that takes backends."""
    facts = (None,) * 4 if identity is None else msgspec.structs.astuple(identity)
    await db.fetch(_SQL["register_drone"], registration.node_id, pool, *facts)


async def void_spawns(db: Transaction, drone_id: int) -> list[str]:
    """Acknowledge the drone's pending spawn actions in its place, and return their backends."""
    return [row["backend_id"] for row in await db.fetch(_SQL["void_spawn_actions"], drone_id)]


def _registered(row: asyncpg.Record) -> RegisteredDrone:
    identity = None
    if row["instance"] is not None:
        identity = DroneIdentity(row["instance"], row["clock"], row["boot_id"], row["machine_id"])
    return RegisteredDrone(identity, row["silent_s"], row["disconnected"])


async def disconnect(db: Database, registration: Registration, controller: str) -> None:
    """Store that a node's connection has ended."""
    await db.execute(_SQL["disconnect_node"], registration.node_id, controller, registration.started_at)


async def mark_drone_stopping(db: Database, node_id: int) -> None:
    """Store that the drone is about to stop, so that it gets no backends until it connects again."""
    await db.execute(_SQL["mark_drone_stopping"], node_id)


async def set_draining(db: Transaction, cluster: str, drone: str, draining: bool) -> bool | None:
    """Set whether the drone is draining. Returns whether this changed anything; None if there is no such drone."""
    rows = await db.fetch(_SQL["set_draining"], cluster, drone, draining)
    return rows[0]["updated"] if rows else None


@dataclass(frozen=True, slots=True)
class DroneHeartbeat:
    """A drone's heartbeat with the time of its clock, and the connection over which it was received."""

    registration: Registration
    local_time: DroneTime


async def drone_heartbeats(db: Database, heartbeats: Sequence[DroneHeartbeat]) -> list[None]:
    """Store heartbeats; the last one of each connection counts."""
    latest = {each.registration: each.local_time.ms for each in heartbeats}
    await db.fetch(
        _SQL["drone_heartbeats"],
        [registration.node_id for registration in latest],
        list(latest.values()),
        [registration.started_at for registration in latest],
    )
    return [None] * len(heartbeats)


async def ping(db: Database) -> None:
    """Return if the database responds.

    Raises:
        DatabaseUnavailable
    """
    await db.fetchrow(_SQL["ping"])


async def cluster_state(db: Database, cluster: str) -> ClusterState:
    """Return the connected proxies of a cluster, and the connected drones that have sent a heartbeat."""
    drones = await db.fetch(_SQL["drones_of_cluster"], cluster)
    proxies = await db.fetch(_SQL["proxies_of_cluster"], cluster)
    return ClusterState(
        drones=[
            DroneState(
                ready=row["ready"],
                draining=row["draining"],
                last_heartbeat_age=row["heartbeat_age_s"],
                backend_count=row["backend_count"],
                node=_node_state(row, NodeNameOfKind(drone=row["name"])),
            )
            for row in drones
        ],
        proxies=[_node_state(row, NodeNameOfKind(proxy=row["name"])) for row in proxies],
    )


def _node_state(row: asyncpg.Record, name: NodeNameOfKind) -> NodeState:
    return NodeState(
        name=name,
        plane_version=row["plane_version"],
        plane_hash=row["plane_hash"],
        controller=row["controller"],
        controller_heartbeat_age=row["controller_heartbeat_age_s"],
    )
