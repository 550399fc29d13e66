"""`plane migrate`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["migrate"]


def migrate(*, db: Annotated[str, Parameter(env_var="DATABASE_URL")]) -> None:
    """Migrate a database to this program's schema and exit. A database of Plane 0.5.5 keeps its data.

    Example: plane migrate --db postgresql://plane@db/plane

    Parameters
    ----------
    db
        PostgreSQL 14 or newer, as postgresql://USER@HOST:PORT/NAME.
    """
    import uvloop

    from plane.cli.logs import set_up_logs
    from plane.database.migrate import migrate as apply_migrations

    set_up_logs()
    applied = uvloop.run(apply_migrations(db))
    if applied:
        print(f"applied {len(applied)}: {', '.join(migration.name for migration in applied)}")  # noqa: T201
    else:
        print("nothing to do: the database is current")  # noqa: T201
