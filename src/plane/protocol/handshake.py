"""The first frame of each side on a node socket."""

from __future__ import annotations

import msgspec

__all__ = ["Handshake", "Version"]


class Version(msgspec.Struct, frozen=True):
    """Version and source hash of a program."""

    version: str
    git_hash: str


class Handshake(msgspec.Struct, frozen=True):
    """Who speaks. Versions that differ are logged, not refused."""

    version: Version
    name: str
