"""The version of this program, and a hash of the sources that run."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plane.protocol.handshake import Version

__all__ = ["VERSION", "source_hash", "this_version"]

# The version of the distribution too: pyproject.toml has it from here. Reading it from the installed distribution would
# take a quarter of `plane version`.
VERSION = "0.2.0"


def source_hash() -> str:
    """Return the first 8 hex digits of a hash over the package's sources.

    It stands where Plane 0.5.5 sends its git hash. Unlike a git hash, it also distinguishes edited copies.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for source in sorted(p for suffix in ("*.py", "*.sql") for p in package.rglob(suffix)):
        digest.update(str(source.relative_to(package)).encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


@functools.cache
def this_version() -> Version:
    """Return the version and the hash as they are in messages."""
    from plane.protocol.handshake import Version

    return Version(version=VERSION, git_hash=source_hash())
