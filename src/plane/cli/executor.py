"""`plane executor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from plane import timing
from plane.cli.arguments import json_object
from plane.cli.serving import serve
from plane.settings import ExecutorSettings, RuntimeKind

__all__ = ["executor"]


def executor(
    *,
    socket: Path,
    runtime: RuntimeKind = RuntimeKind.AUTO,
    docker_socket: Path = Path("/var/run/docker.sock"),
    docker_runtime: str | None = None,
    log_config: str | None = None,
    mount_base: Path | None = None,
    auto_prune_images: Annotated[bool, Parameter(negative=())] = False,
    auto_prune_containers_older_than_seconds: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 0,
    expose: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    soft_terminate_grace: Annotated[float, Parameter(validator=validators.Number(gt=0))] = (
        timing.SOFT_TERMINATE_GRACE_S
    ),
    startup_timeout: Annotated[float, Parameter(validator=validators.Number(gt=0))] = timing.STARTUP_TIMEOUT_S,
) -> None:
    """Run an external executor: runs backends for a drone that is told of its socket.

    Parameters
    ----------
    socket
        Unix socket to listen at.
    runtime
        What runs backends: docker, process, or auto for Docker where an engine answers, else processes. Processes
        take the executable's image as a command line.
    docker_socket
        Unix socket of the Docker engine.
    docker_runtime
        OCI runtime for containers, by the engine's name for it, such as runsc.
    log_config
        Logging of containers as the engine's JSON, such as {"Type": "journald"}.
    mount_base
        Folder below which backends may have a folder of their own mounted at /plane-data.
    auto_prune_images
        Remove images that no container uses, every minute.
    auto_prune_containers_older_than_seconds
        Remove stopped containers of backends so long after their end.
    expose
        Folder below /tmp, /var/tmp or /run that isolated processes can read; may be given several times.
    soft_terminate_grace
        Seconds from asking a backend to stop until it is killed.
    startup_timeout
        Seconds until a backend must answer HTTP.
    """
    from plane.drone.executor_running import running_executor

    serve(
        running_executor(
            ExecutorSettings(
                socket=socket,
                runtime=runtime,
                docker_socket=docker_socket,
                docker_runtime=docker_runtime,
                log_config=json_object(log_config, "--log-config"),
                mount_base=mount_base,
                auto_prune_images=auto_prune_images,
                auto_prune_containers_older_than_s=auto_prune_containers_older_than_seconds,
                expose=expose,
                soft_terminate_grace_s=soft_terminate_grace,
                startup_timeout_s=startup_timeout,
            )
        )
    )
