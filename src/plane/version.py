"""The version of this program, and a hash of the sources that run."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from plane.protocol.handshake import Version

__all__ = ["this_version"]


@functools.cache
def this_version() -> Version:
    """Return the distribution's version and the first 8 hex digits of a hash over the package's sources.

    The hash stands where Plane 0.5.5 sends its git hash. Unlike a git hash, it also distinguishes edited copies.
    """
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for source in sorted(p for suffix in ("*.py", "*.sql") for p in package.rglob(suffix)):
        digest.update(str(source.relative_to(package)).encode())
        digest.update(source.read_bytes())
    return Version(
        version=importlib.metadata.version("plane-orchestrator"),
        git_hash=digest.hexdigest()[:8],
    )
