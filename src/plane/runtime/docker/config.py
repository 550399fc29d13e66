"""Validate the executable of a container, and build the container's configuration for the engine.

Pure. Rules: `docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plane.decisions.backends.exec_limits import LARGEST_TOTAL_BYTES, describe_excess
from plane.protocol.keys import AcquiredKey
from plane.protocol.spawn import DockerExecutable, Network
from plane.runtime.base import BackendFailed, check_variable_names, parse_executable, session_environment

__all__ = [
    "LABEL",
    "PORT",
    "ContainerDefaults",
    "container_config",
    "published_port",
    "read_executable",
]

LABEL = "dev.plane.backend"
# Several drones may share an engine.
DRONE_LABEL = "dev.plane.drone"
# Names of drones repeat between clusters.
CLUSTER_LABEL = "dev.plane.cluster"
# Both repeat between installations of `plane dev`.
INSTALLATION_LABEL = "dev.plane.installation"
PORT = 8080
DEFAULT_CPU_PERIOD_US = 100_000
DATA_FOLDER = "/plane-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDefaults:
    """The part of a container's configuration that is the same for all backends of a drone.

    Attributes:
        installation: distinguishes drones of the same name and cluster that share the engine; empty: there is none.
        runtime: the engine's name of an OCI runtime; None: the engine's default.
        log_config: the engine's log driver and its options; None: the engine's default.
    """

    drone: str
    cluster: str
    installation: str = ""
    runtime: str | None = None
    log_config: dict[str, Any] | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which the drone's next process finds its containers."""
        labels = {DRONE_LABEL: self.drone, CLUSTER_LABEL: self.cluster}
        return labels | {INSTALLATION_LABEL: self.installation} if self.installation else labels


def read_executable(executable: Any) -> DockerExecutable:
    """Return the validated executable.

    Raises:
        BackendFailed: names the field and what it must be.
    """
    if isinstance(executable, DockerExecutable):
        # `prepare` has validated it.
        return executable
    if isinstance(executable, dict) and "command" in executable and "image" not in executable:
        raise BackendFailed(
            'executable: this drone runs images, not commands; give {"image": "…"}, or use a drone with '
            "--runtime process"
        )
    shape = '{"image": "…", "env": {…}}'
    parsed = parse_executable(executable, DockerExecutable, shape)
    if not parsed.image:
        raise BackendFailed("executable.image: must name an image")
    check_variable_names(parsed.env)
    if parsed.network is Network.NONE and parsed.network_name is not None:
        raise BackendFailed(
            "executable.network_name: a container with network none cannot join another network; leave one of them out"
        )
    return parsed


def container_config(
    backend_id: str,
    executable: DockerExecutable,
    key: AcquiredKey | None,
    static_token: str | None,
    defaults: ContainerDefaults,
    mount: str | None,
) -> dict[str, Any]:
    """Return the body of the engine's request "create container".

    Args:
        mount: path of the folder to mount, on the engine's machine; None: no mount.

    Raises:
        BackendFailed: the environment is too large.
    """
    environment = executable.env | session_environment(backend_id, PORT, key, static_token)
    # Only the engine knows the stack limit of the container, which may reduce this further.
    if (reason := describe_excess((), environment, LARGEST_TOTAL_BYTES)) is not None:
        raise BackendFailed(reason)
    limits = executable.resource_limits
    host: dict[str, Any] = {}
    if executable.network is Network.NONE:
        # A relay forwards a port of the machine, see `plane.runtime.network.relays`.
        host["NetworkMode"] = "none"
    else:
        host["PortBindings"] = {f"{PORT}/tcp": [{"HostIp": "", "HostPort": "0"}]}
    if limits.memory_limit_bytes is not None:
        host["Memory"] = limits.memory_limit_bytes
    if limits.cpu_period is not None or limits.cpu_period_percent is not None:
        host["CpuPeriod"] = limits.cpu_period or DEFAULT_CPU_PERIOD_US
        if limits.cpu_period_percent is not None:
            host["CpuQuota"] = host["CpuPeriod"] * limits.cpu_period_percent // 100
    if limits.cpu_time_limit is not None:
        host["Ulimits"] = [{"Name": "cpu", "Soft": limits.cpu_time_limit, "Hard": limits.cpu_time_limit}]
    if limits.disk_limit_bytes is not None:
        host["StorageOpt"] = {"size": str(limits.disk_limit_bytes)}
    if executable.network_name is not None:
        host["NetworkMode"] = executable.network_name
    if defaults.runtime is not None:
        host["Runtime"] = defaults.runtime
    if defaults.log_config is not None:
        host["LogConfig"] = defaults.log_config
    if mount is not None:
        host["Mounts"] = [{"Type": "bind", "Source": mount, "Target": DATA_FOLDER}]
    return {
        "Image": executable.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {LABEL: "true", **defaults.labels},
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "HostConfig": host,
    }


def published_port(inspected: dict[str, Any], ip: str | None) -> int | None:
    """Return the port of the machine that leads to the container; None if the engine has not published it (yet).

    The engine may publish different ports for IPv4 and IPv6. The same number of the other family may belong to another
    container.

    Args:
        inspected: the engine's description of the container.
        ip: the drone's address, which selects the family; None: IPv4.
    """
    bindings = inspected["NetworkSettings"]["Ports"].get(f"{PORT}/tcp") or []
    of_family = [binding for binding in bindings if (":" in binding["HostIp"]) == (ip is not None and ":" in ip)]
    for binding in of_family or bindings:
        return int(binding["HostPort"])
    return None
