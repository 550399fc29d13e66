"""The first frame of each side on a node socket."""

from __future__ import annotations

import enum

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["DroneIdentity", "Extension", "Handshake", "Version"]


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


class DroneIdentity(msgspec.Struct, frozen=True):
    """Which drone this is, beyond its name, which a cloned machine image copies.

    Attributes:
        instance: a random id that the drone keeps with its state; new whenever the state is.
        clock: a random id of the drone's clock; new whenever that clock starts over.
        boot_id: of the machine's present boot; empty where there is none.
        machine_id: of the machine, which a cloned image copies too; empty where there is none.
    """

    instance: str
    clock: str
    boot_id: str
    machine_id: str


class Handshake(msgspec.Struct, frozen=True):
    """Who speaks. Versions that differ are logged, not refused.

    ``extensions``: names of the `Extension` that the speaker understands; absent from originals. Unknown names are
    of later versions and mean nothing here.
    ``identity``: of a drone; absent from originals and from other nodes.
    """

    version: Version
    name: str
    extensions: tuple[str, ...] | UnsetType | None = UNSET
    identity: DroneIdentity | UnsetType | None = UNSET

    def understands(self, extension: Extension) -> bool:
        """Whether the speaker may be sent the messages of ``extension``."""
        return bool(self.extensions) and extension in (self.extensions or ())
