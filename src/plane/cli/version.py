"""`plane version`."""

from __future__ import annotations

from plane.version import VERSION, source_hash

__all__ = ["version", "version_text"]


def version() -> None:
    """Print the version and the hash of the sources."""
    print(version_text())  # noqa: T201


def version_text() -> str:
    """Return the line that `plane version` prints."""
    return f"plane {VERSION} ({source_hash()})"
