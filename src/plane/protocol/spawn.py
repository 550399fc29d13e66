"""What to run: spawn configurations and the executables of the runtimes."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.codec import Int32, Int64, UInt8

__all__ = [
    "DockerExecutable",
    "Isolation",
    "Network",
    "ProcessExecutable",
    "PullPolicy",
    "RegistryCredentials",
    "ResourceLimits",
    "SpawnConfig",
]


class PullPolicy(enum.StrEnum):
    """When to pull an image; the default is `IF_NOT_PRESENT`."""

    IF_NOT_PRESENT = "IfNotPresent"
    ALWAYS = "Always"
    NEVER = "Never"


class RegistryCredentials(msgspec.Struct, frozen=True):
    """For the image's registry."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"RegistryCredentials(username={self.username!r}, password=…)"


class ResourceLimits(msgspec.Struct, frozen=True):
    """Limits of one backend; ``None`` is unlimited.

    ``cpu_period`` is in microseconds, ``cpu_period_percent`` a share of it, ``cpu_time_limit`` in seconds
    of CPU, the others in bytes.
    """

    cpu_period: Int64 | None = None
    cpu_period_percent: UInt8 | None = None
    cpu_time_limit: Int64 | None = None
    memory_limit_bytes: Int64 | None = None
    disk_limit_bytes: Int64 | None = None


class Network(enum.StrEnum):
    """What of the network a backend can reach; the default is `SHARED`."""

    SHARED = "shared"
    NONE = "none"


class DockerExecutable(msgspec.Struct, frozen=True, kw_only=True):
    """The executable of the Docker runtime (also what travels to an external executor)."""

    image: str
    pull_policy: PullPolicy | None = None
    credentials: RegistryCredentials | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    resource_limits: ResourceLimits = ResourceLimits()
    mount: bool | str | None = None
    network_name: str | None = None
    # Absent unless it was asked for: executors that were written for the original do not know it.
    network: Network | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "env", "credentials")


class Isolation(enum.StrEnum):
    """What keeps a process from the machine that it runs on."""

    NONE = "none"
    BUBBLEWRAP = "bubblewrap"


class ProcessExecutable(msgspec.Struct, frozen=True, kw_only=True):
    """The executable of the process runtime: ``command`` is argv, ``cwd`` a directory on the drone.

    ``isolation``: None is the strongest that the machine offers. ``user``: name or id, where the drone is root.
    ``network``: ``none`` leaves nothing to reach, and its own port to be reached at through the drone.
    """

    command: list[str]
    env: dict[str, str] = msgspec.field(default_factory=dict)
    cwd: str | None = None
    resource_limits: ResourceLimits = ResourceLimits()
    mount: bool | str | None = None
    isolation: Isolation | None = None
    user: str | None = None
    network: Network | None = None

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "command", "env")


class SpawnConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a backend if no one holds the key. ``executable`` means what the drone's runtime says.

    ``rewrite_prefix``: the proxy puts `Location` and cookie paths of its responses below ``/{token}``.
    ``token_in_cookie``: with ``subdomain``, the first visit moves the token from the path into a cookie. Both are
    absent unless they were asked for: an original controller does not know them.
    """

    executable: Any
    id: str | None = None
    cluster: str | None = None
    pool: str = ""
    lifetime_limit_seconds: Int32 | None = None
    max_idle_seconds: Int32 | None = None
    use_static_token: bool = False
    subdomain: str | None = None
    rewrite_prefix: bool | UnsetType = UNSET
    token_in_cookie: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "executable")
