"""Controllers, nodes and drones in the database. Statements: ``nodes.sql``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import msgspec

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.decisions.drones.registration import RegisteredDrone, may_register, orders_are_void
from plane.protocol.control_api import ClusterState, DroneState, NodeNameOfKind, NodeState
from plane.protocol.handshake import DroneIdentity, Handshake, Version
from plane.protocol.names import NodeKind
from plane.protocol.times import DroneTime
from plane.timing import UNHEALTHY_AFTER_S

__all__ = [
    "DroneHeartbeat",
    "RegisteredAnew",
    "Registration",
    "answers",
    "cluster_state",
    "controller_heartbeat",
    "drone_heartbeats",
    "drone_stops",
    "node_left",
    "register",
    "register_drone",
    "set_draining",
]

# Any number that no other program on the database uses for locks of two numbers.
NAME_LOCK = 0x504C_414E

_SQL = statements("nodes")


@dataclass(frozen=True, slots=True)
class Registration:
    """One connection of a node to this controller. ``cluster`` is None for a DNS server."""

    node_id: int
    cluster: str | None
    started_at: datetime.datetime


async def controller_heartbeat(db: Database, controller: str, version: Version, *, online: bool) -> None:
    """This controller lives, or (``online`` false) is about to stop."""
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
    """A node has connected; a DNS server is of no ``cluster``."""
    known = (name, version.version, version.git_hash, controller, ip)
    if cluster is None:
        rows = await db.fetch(_SQL["register_node_of_no_cluster"], str(kind), *known)
    else:
        rows = await db.fetch(_SQL["register_node"], str(kind), cluster, *known)
    return Registration(rows[0]["id"], cluster, rows[0]["last_connection_start_time"])


@dataclass(frozen=True, slots=True)
class RegisteredAnew:
    """A drone's registration, and the backends whose orders to spawn it must not get any more."""

    registration: Registration
    void: Sequence[str]


async def register_drone(
    db: Database, cluster: str, node: Handshake, pool: str, controller: str, ip: str
) -> RegisteredAnew | None:
    """A drone of that pool has connected and takes work. None, and nothing is changed: its name is another's."""
    identity = node.identity or None
    async with db.transaction() as transaction:
        await transaction.fetch(_SQL["lock_drone_name"], NAME_LOCK, cluster, node.name)
        rows = await transaction.fetch(_SQL["registered_drone"], cluster, node.name, UNHEALTHY_AFTER_S)
        known = _registered(rows[0]) if rows else None
        if not may_register(identity, known):
            return None
        registration = await register(transaction, NodeKind.DRONE, cluster, node.name, node.version, controller, ip)
        its = (None,) * 4 if identity is None else msgspec.structs.astuple(identity)
        await transaction.fetch(_SQL["register_drone"], registration.node_id, pool, *its)
        void = []
        if orders_are_void(identity, known):
            void = await transaction.fetch(_SQL["void_spawn_actions"], registration.node_id)
    return RegisteredAnew(registration, [row["backend_id"] for row in void])


def _registered(row: asyncpg.Record) -> RegisteredDrone:
    identity = None
    if row["instance"] is not None:
        identity = DroneIdentity(row["instance"], row["clock"], row["boot_id"], row["machine_id"])
    return RegisteredDrone(identity, row["silent_s"], row["disconnected"])


async def node_left(db: Database, registration: Registration, controller: str) -> None:
    """A node's connection has ended."""
    await db.execute(_SQL["node_left"], registration.node_id, controller, registration.started_at)


async def drone_stops(db: Database, node_id: int) -> None:
    """The drone is about to stop and takes no more work; it does again once it has connected anew."""
    await db.execute(_SQL["drone_stops"], node_id)


async def set_draining(db: Database, cluster: str, drone: str, draining: bool) -> bool | None:
    """Give the drone no more backends, or some again. False if it was so already; None if there is no such drone."""
    row = await db.fetchrow(_SQL["set_draining"], cluster, drone, draining)
    return None if row is None else row["updated"]


@dataclass(frozen=True, slots=True)
class DroneHeartbeat:
    """A drone lives, and this is what its clock says. ``registration``: of the connection over which it came."""

    registration: Registration
    local_time: DroneTime


async def drone_heartbeats(db: Database, heartbeats: Sequence[DroneHeartbeat]) -> list[None]:
    """Drones live; of several heartbeats over one connection the last counts."""
    latest = {each.registration: each.local_time.ms for each in heartbeats}
    await db.fetch(
        _SQL["drone_heartbeats"],
        [registration.node_id for registration in latest],
        list(latest.values()),
        [registration.started_at for registration in latest],
    )
    return [None] * len(heartbeats)


async def answers(db: Database) -> None:
    """Return if the database answers.

    Raises:
        DatabaseUnavailable
    """
    await db.fetchrow(_SQL["database_answers"])


async def cluster_state(db: Database, cluster: str) -> ClusterState:
    """The connected drones and proxies of a cluster; drones once they have sent a heartbeat."""
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
