"""Reads the ``.sql`` files: named statements, each with a comment that says what it is for.

A statement begins with ``-- name: its_name``. ``tests/contract/test_sql.py`` prepares every statement against a
migrated database.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

__all__ = ["all_statements", "statements"]

_NAME = re.compile(r"^-- name: ([a-z_]+)\n", re.M)


@functools.cache
def statements(aggregate: str) -> dict[str, str]:
    """Return the texts of the statements in ``{aggregate}.sql`` by their names."""
    text = resources.files(__package__).joinpath(f"{aggregate}.sql").read_text()
    _, *parts = _NAME.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def all_statements() -> dict[str, str]:
    """Return the texts of all statements by ``aggregate.name``."""
    files = [f for f in resources.files(__package__).iterdir() if f.name.endswith(".sql")]
    stems = sorted(f.name.removesuffix(".sql") for f in files)
    return {f"{stem}.{name}": text for stem in stems for name, text in statements(stem).items()}
