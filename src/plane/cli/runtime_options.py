"""Options of the runtime, which `plane drone` and `plane executor` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from plane import timing
from plane.cli.arguments import exposed_paths, json_object
from plane.decisions.backends.port_selection import parse_port_range
from plane.settings import RuntimeKind

__all__ = ["RuntimeOptions"]

_POSITIVE = Parameter(validator=validators.Number(gt=0))
_DOCKER = Parameter(group="Containers")
_PROCESSES = Parameter(group="Processes")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How backends are run.

    Parameters
    ----------
    runtime
        Runtime of backends: docker, process, or auto for Docker where an engine responds, else processes. Processes of
        an external executor take the executable's image as a command line.
    docker_socket
        Unix socket of the Docker engine.
    docker_runtime
        OCI runtime for containers, by the engine's name for it, such as runsc.
    log_config
        Logging of containers as the engine's JSON, such as {"Type": "journald"}.
    mount_base
        Folder whose subfolders may be mounted into backends at /plane-data.
    auto_prune_images
        Remove unused images every minute.
    auto_prune_containers_older_than_seconds
        Remove stopped containers of backends this long after their end, every minute.
    expose
        Folder below /tmp, /var/tmp, /run or a private home that isolated processes can read; may be given several
        times.
    hide
        File or folder that isolated processes cannot read, such as one with keys; may be given several times. The
        state store and the file of `plane run-config` are hidden without it.
    backend_user
        User of processes whose executable names none, if this program is root; default plane-backend if the machine has
        that user, else nobody.
    backend_ports
        Range of ports for backends that are processes, as FIRST-LAST; default outside of net.ipv4.ip_local_port_range.
    log_limit_bytes
        Output that is kept, per backend.
    soft_terminate_grace
        Seconds from asking a backend to stop until it is killed.
    startup_timeout
        Seconds until a backend must respond to HTTP.
    """

    runtime: RuntimeKind = RuntimeKind.AUTO
    docker_socket: Annotated[Path, _DOCKER] = Path("/var/run/docker.sock")
    docker_runtime: Annotated[str | None, _DOCKER] = None
    log_config: Annotated[str | None, _DOCKER] = None
    mount_base: Path | None = None
    auto_prune_images: Annotated[bool, _DOCKER, Parameter(negative=())] = False
    auto_prune_containers_older_than_seconds: Annotated[
        float, _DOCKER, Parameter(validator=validators.Number(gte=0))
    ] = 0
    expose: Annotated[tuple[Path, ...], _PROCESSES, Parameter(negative=())] = ()
    hide: Annotated[tuple[Path, ...], _PROCESSES, Parameter(negative=())] = ()
    backend_user: Annotated[str | None, _PROCESSES] = None
    backend_ports: Annotated[str | None, _PROCESSES] = None
    log_limit_bytes: Annotated[int, Parameter(validator=validators.Number(gte=100_000))] = 10 * 1024 * 1024
    soft_terminate_grace: Annotated[float, _POSITIVE] = timing.SOFT_TERMINATE_GRACE_S
    startup_timeout: Annotated[float, _POSITIVE] = timing.STARTUP_TIMEOUT_S

    def settings(self) -> dict[str, Any]:
        """Return the fields of `plane.settings.RuntimeSettings`.

        Raises:
            ConfigurationError
        """
        return {
            "runtime": self.runtime,
            "docker_socket": self.docker_socket,
            "docker_runtime": self.docker_runtime,
            "log_config": json_object(self.log_config, "--log-config"),
            "mount_base": self.mount_base,
            "auto_prune_images": self.auto_prune_images,
            "auto_prune_containers_older_than_s": self.auto_prune_containers_older_than_seconds,
            "expose": exposed_paths(self.expose),
            "hide": self.hide,
            "backend_user": self.backend_user,
            "backend_ports": None if self.backend_ports is None else parse_port_range(self.backend_ports),
            "log_limit_bytes": self.log_limit_bytes,
            "soft_terminate_grace_s": self.soft_terminate_grace,
            "startup_timeout_s": self.startup_timeout,
        }
