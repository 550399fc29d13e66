"""The option for the database, which all commands of `plane db` have."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["DatabaseOption"]

DatabaseOption = Annotated[
    str,
    Parameter(
        name="--db",
        env_var="DATABASE_URL",
        help="PostgreSQL, as postgresql://USER@HOST:PORT/NAME; may also be given before the command.",
    ),
]
