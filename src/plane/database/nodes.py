"""Controllers, nodes and drones in the database. Statements: ``nodes.sql``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from plane.database.pool import Database
from plane.database.statements import statements
from plane.protocol.connect import ClusterState, DroneState, NodeNameOfKind, NodeState
from plane.protocol.handshake import Version
from plane.protocol.names import NodeKind
from plane.protocol.times import DroneTime

__all__ = [
    "DroneHeartbeat",
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
    db: Database, kind: NodeKind, cluster: str | None, name: str, version: Version, controller: str, ip: str
) -> Registration:
    """A node has connected; a DNS server is of no ``cluster``."""
    known = (name, version.version, version.git_hash, controller, ip)
    if cluster is None:
        row = await db.fetchrow(_SQL["register_node_of_no_cluster"], str(kind), *known)
    else:
        row = await db.fetchrow(_SQL["register_node"], str(kind), cluster, *known)
    assert row is not None
    return Registration(row["id"], cluster, row["last_connection_start_time"])


async def node_left(db: Database, registration: Registration, controller: str) -> None:
    """A node's connection has ended."""
    await db.execute(_SQL["node_left"], registration.node_id, controller, registration.started_at)


async def register_drone(db: Database, node_id: int, pool: str) -> None:
    """The node is a drone of that pool and takes work."""
    await db.execute(_SQL["register_drone"], node_id, pool)


async def drone_stops(db: Database, node_id: int) -> None:
    """The drone is about to stop and takes no more work; it does again once it has connected anew."""
    await db.execute(_SQL["drone_stops"], node_id)


async def set_draining(db: Database, cluster: str, drone: str, draining: bool) -> bool | None:
    """Give the drone no more backends, or some again. False if it was so already; None if there is no such drone."""
    row = await db.fetchrow(_SQL["set_draining"], cluster, drone, draining)
    return None if row is None else row["updated"]


@dataclass(frozen=True, slots=True)
class DroneHeartbeat:
    """A drone lives, and this is what its clock says."""

    node_id: int
    local_time: DroneTime


async def drone_heartbeats(db: Database, heartbeats: Sequence[DroneHeartbeat]) -> list[None]:
    """Drones live; of several heartbeats of one the last counts."""
    latest = {each.node_id: each.local_time.ms for each in heartbeats}
    await db.fetch(_SQL["drone_heartbeats"], list(latest), list(latest.values()))
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
