"""The first frame of each side on a node socket."""

from __future__ import annotations

import enum

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["Extension", "Handshake", "Version"]


class Extension(enum.StrEnum):
    """A message of ours that Plane 0.5.5 does not know. It is sent only to a peer that says that it understands it.

    ``STOPPING``: a drone tells that it takes no more work. ``LOGS``: a controller asks a drone for a backend's output.
    ``REVOCATION``: a controller tells a proxy which tokens have been revoked.
    """

    STOPPING = "stopping"
    LOGS = "logs"
    REVOCATION = "revocation"


class Version(msgspec.Struct, frozen=True):
    """Version and source hash of a program."""

    version: str
    git_hash: str


class Handshake(msgspec.Struct, frozen=True):
    """Who speaks. Versions that differ are logged, not refused.

    ``extensions``: names of the `Extension` that the speaker understands; absent from originals. Unknown names are
    of later versions and mean nothing here.
    """

    version: Version
    name: str
    extensions: tuple[str, ...] | UnsetType | None = UNSET

    def understands(self, extension: Extension) -> bool:
        """Whether the speaker may be sent the messages of ``extension``."""
        return bool(self.extensions) and extension in (self.extensions or ())
