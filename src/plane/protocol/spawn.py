"""Spawn configurations, and the executables of the runtimes."""

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
    """Credentials for the image's registry."""

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
    """The network that a backend can reach; the default is `SHARED`."""

    SHARED = "shared"
    NONE = "none"


class DockerExecutable(msgspec.Struct, frozen=True, kw_only=True):
    """The executable of the Docker runtime, also sent to an external executor."""

    image: str
    pull_policy: PullPolicy | None = None
    credentials: RegistryCredentials | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    resource_limits: ResourceLimits = ResourceLimits()
    mount: bool | str | None = None
    network_name: str | None = None
    # Absent unless it was requested: executors for Plane 0.5.5 do not know it.
    network: Network | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return codec.redacted_repr(self, "env", "credentials")


class Isolation(enum.StrEnum):
    """How a process is isolated from its machine."""

    NONE = "none"
    BUBBLEWRAP = "bubblewrap"


class ProcessExecutable(msgspec.Struct, frozen=True, kw_only=True):
    """The executable of the process runtime: ``command`` is argv, ``cwd`` a directory on the drone.

    ``isolation``: None is the strongest that the machine supports. ``user``: name or id, if the drone is root.
    ``network``: with ``none`` the process can reach nothing, and is reached only at its own port, through the drone.
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
    """How to spawn a backend if the key is not held. The drone's runtime defines ``executable``.

    ``rewrite_prefix``: the proxy rewrites `Location` and cookie paths of responses to be below ``/{token}``.
    ``token_in_cookie``: with ``subdomain``, the first visit moves the token from the path into a cookie. Both are
    absent unless they were requested: Plane 0.5.5 does not know them.
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
