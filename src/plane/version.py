"""Which program this is: the version, and a hash of the sources that run."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path

from plane.protocol.handshake import Version

__all__ = ["this_version"]


@functools.cache
def this_version() -> Version:
    """The distribution's version and the first 8 hex digits of a hash over the package's sources.

    The hash takes the place of the original's git hash; unlike that it also tells edited copies apart.
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
