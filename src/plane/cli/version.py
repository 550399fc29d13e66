"""`plane version`."""

from __future__ import annotations

from plane.version import this_version

__all__ = ["version"]


def version() -> None:
    """Print the version and the hash of the sources."""
    this = this_version()
    print(f"plane {this.version} ({this.git_hash})")  # noqa: T201
