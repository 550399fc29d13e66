"""Finds the drone that a command of `plane db` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plane.protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from plane.database.pool import Database

__all__ = ["known_drone"]


async def known_drone(database: Database, cluster: str, drone: str) -> int:
    """Return the node id of a drone.

    Raises:
        ConfigurationError: there is no such drone.
    """
    from plane.database import inspection

    node_id = await inspection.drone_id(database, cluster, drone)
    if node_id is None:
        raise ConfigurationError(
            f"there is no drone {drone!r} in cluster {cluster!r}; `plane db list-nodes --all` lists all nodes"
        )
    return node_id
