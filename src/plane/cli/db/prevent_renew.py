"""`plane db prevent-renew`."""

from __future__ import annotations

from plane.cli.db.options import DatabaseOption
from plane.cli.output import console
from plane.protocol.errors import ConfigurationError

__all__ = ["prevent_renew"]


async def prevent_renew(backend: str, /, *, db: DatabaseOption) -> None:
    """Prevent the renewal of a backend's key. Its lease ends within a minute, and its drone terminates it.

    Example: plane db prevent-renew k6xqveyu5dhqvw

    Parameters
    ----------
    backend
        Name of the backend.
    """
    from plane.cli.db.connection import open_database
    from plane.database import keys

    async with open_database(db) as database:
        if not await keys.prevent_renewal(database, backend):
            raise ConfigurationError(f"backend {backend!r} holds no key; `plane db list-backends` lists backends")
    console().print(f"The key of backend {backend} will not be renewed", markup=False)
