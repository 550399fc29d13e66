"""`plane db cleanup`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from plane.cli.db.options import DatabaseOption
from plane.cli.output import console

__all__ = ["cleanup"]


async def cleanup(
    batch: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))] = 100,
    /,
    *,
    min_age_days: Annotated[int | None, Parameter(validator=validators.Number(gte=0, lte=36500))] = None,
    db: DatabaseOption,
) -> None:
    """Delete expired tokens and, with --min-age-days, old terminated backends and events.

    Example: plane db cleanup --min-age-days 30

    Parameters
    ----------
    batch
        Backends deleted per transaction.
    min_age_days
        Delete backends and events older than this many days. Default: delete only expired tokens.
    """
    from plane.cli.db.connection import open_database
    from plane.database.cleanup import delete_expired_tokens, delete_old

    out = console()
    async with open_database(db) as database:
        await delete_expired_tokens(database)
        out.print("Deleted expired tokens")
        if min_age_days is not None:
            cleaned = await delete_old(database, min_age_days, batch)
            out.print(f"Deleted {cleaned.backends} terminated backends and {cleaned.events} events")
