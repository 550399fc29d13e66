"""The handshake: the first message of each side on a node socket."""

from __future__ import annotations

import enum

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["DroneIdentity", "Extension", "Handshake", "Version"]


class Extension(enum.StrEnum):
    """A message that Plane 0.5.5 does not have or expect. It is sent only to peers whose handshake lists the extension.

    ``STOPPING``: a drone accepts no more backends. ``LOGS``: a controller requests a backend's output from a drone.
    ``REVOCATION``: a controller notifies a proxy of revoked tokens. ``ROUTES``: a proxy requests several routes in one
    message, and a controller responds in the same way. ``STATES``: a drone reports states once more that were
    acknowledged, in events with the id 0.
    """

    STOPPING = "stopping"
    LOGS = "logs"
    REVOCATION = "revocation"
    ROUTES = "routes"
    STATES = "states"


class Version(msgspec.Struct, frozen=True):
    """Version and source hash of a program."""

    version: str
    git_hash: str


class DroneIdentity(msgspec.Struct, frozen=True):
    """Identifies a drone beyond its name, which a cloned machine image copies.

    Attributes:
        instance: a random id in the drone's state store; a new store has a new one.
        clock: a random id of the drone's clock; a clock that starts over has a new one.
        boot_id: of the machine's current boot; empty if there is none.
        machine_id: of the machine, which a cloned image copies too; empty if there is none.
    """

    instance: str
    clock: str
    boot_id: str
    machine_id: str


class Handshake(msgspec.Struct, frozen=True):
    """Name and version of the sender. Different versions are logged, not refused.

    ``extensions``: names of each `Extension` that the sender supports; absent from Plane 0.5.5. Unknown names, of later
    versions, are ignored.
    ``identity``: of a drone; absent from Plane 0.5.5 and from other nodes.
    """

    version: Version
    name: str
    extensions: tuple[str, ...] | UnsetType | None = UNSET
    identity: DroneIdentity | UnsetType | None = UNSET

    def supports(self, extension: Extension) -> bool:
        """Return whether the sender supports the messages of ``extension``."""
        return bool(self.extensions) and extension in (self.extensions or ())
