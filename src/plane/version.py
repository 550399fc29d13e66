"""The version of this program, and a hash of the sources that run."""

from __future__ import annotations

import functools
import hashlib
import os
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
    package = os.path.dirname(__file__)  # noqa: PTH120 - the import of pathlib takes as long as all the rest of this
    sources = (
        os.path.join(folder, name)  # noqa: PTH118
        for folder, _, names in os.walk(package)
        for name in names
        if name.endswith((".py", ".sql"))
    )
    for source in sorted(sources):
        digest.update(source.removeprefix(package).encode())
        with open(source, "rb") as file:  # noqa: PTH123
            digest.update(file.read())
    return digest.hexdigest()[:8]


@functools.cache
def this_version() -> Version:
    """Return the version and the hash as they are in messages."""
    from plane.protocol.handshake import Version

    return Version(version=VERSION, git_hash=source_hash())
