"""Leases for ordering a cluster's certificate, and the TXT values of its DNS challenge. The SQL is in ``acme.sql``."""

from __future__ import annotations

from plane.database.pool import Database
from plane.database.statements import statements
from plane.timing import CERTIFICATE_LEASE_S

__all__ = ["release_lease", "set_txt_value", "take_lease", "txt_values"]

_SQL = statements("acme")


async def take_lease(db: Database, cluster: str, node_id: int) -> bool:
    """Try to acquire the lease of the cluster's certificate for the node."""
    return await db.fetchrow(_SQL["take_certificate_lease"], cluster, node_id, CERTIFICATE_LEASE_S) is not None


async def set_txt_value(db: Database, cluster: str, node_id: int, value: str) -> bool:
    """Set the challenge's value (at most 255 characters). False if the node does not hold the lease."""
    return await db.fetchrow(_SQL["set_txt_value"], cluster, node_id, value) is not None


async def release_lease(db: Database, cluster: str, node_id: int) -> None:
    """Release the lease, if the node holds it."""
    await db.execute(_SQL["release_certificate_lease"], cluster, node_id)


async def txt_values(db: Database, cluster: str) -> tuple[str, ...]:
    """Return the values of the cluster's challenge, the newest first: none, one or two."""
    row = await db.fetchrow(_SQL["txt_values"], cluster)
    return () if row is None else tuple(value for value in row.values() if value is not None)
