"""`plane drone`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from plane import timing
from plane.cli.arguments import cluster_name, ip_address, json_object, node_name
from plane.cli.serving import serve
from plane.protocol.names import Prefix
from plane.settings import DroneSettings, RuntimeKind
from plane.transport.controller_url import ControllerUrl

__all__ = ["drone"]


def drone(
    *,
    controller_url: str,
    cluster: str,
    name: str | None = None,
    ip: str = "127.0.0.1",
    pool: str = "",
    db: Path | None = None,
    terminate_on_exit: Annotated[bool, Parameter(negative=())] = False,
    runtime: RuntimeKind = RuntimeKind.AUTO,
    docker_socket: Path = Path("/var/run/docker.sock"),
    executor_socket: Path | None = None,
    docker_runtime: str | None = None,
    log_config: str | None = None,
    mount_base: Path | None = None,
    auto_prune_images: Annotated[bool, Parameter(negative=())] = False,
    auto_prune_containers_older_than_seconds: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 0,
    expose: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    log_limit_bytes: Annotated[int, Parameter(validator=validators.Number(gte=100_000))] = 10 * 1024 * 1024,
    soft_terminate_grace: Annotated[float, Parameter(validator=validators.Number(gt=0))] = (
        timing.SOFT_TERMINATE_GRACE_S
    ),
    startup_timeout: Annotated[float, Parameter(validator=validators.Number(gt=0))] = timing.STARTUP_TIMEOUT_S,
) -> None:
    """Run a drone: starts and ends backends on this machine as the controller orders.

    Example: plane drone --controller-url http://10.0.0.1:8080 --cluster plane.example.com --ip 10.0.0.2 --db d.sqlite

    Parameters
    ----------
    controller_url
        The controller, as http://HOST:PORT or https://TOKEN@HOST.
    cluster
        Cluster that this drone serves, as HOST or HOST:PORT.
    name
        Name of this drone, dr-…; default random.
    ip
        Address (or host name, which is resolved) where proxies reach the backends of this drone.
    pool
        Pool of this drone.
    db
        File of the state store; default in memory. With a file, backends go on when the drone stops, and its next
        start takes them over.
    terminate_on_exit
        End all backends when the drone stops, and at its start what a former one has left.
    runtime
        What runs backends: docker, process, or auto for Docker where an engine answers, else processes.
    docker_socket
        Unix socket of the Docker engine.
    executor_socket
        Unix socket of an external executor, to which backends are left; see `plane executor`.
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
    log_limit_bytes
        How much of each backend's output is kept.
    soft_terminate_grace
        Seconds from asking a backend to stop until it is killed.
    startup_timeout
        Seconds until a backend must answer HTTP.
    """
    from plane.drone.running import running_drone

    serve(
        running_drone(
            DroneSettings(
                controller_url=ControllerUrl.parse(controller_url),
                cluster=cluster_name(cluster),
                name=node_name(name, Prefix.DRONE),
                ip=ip_address(ip),
                pool=pool,
                db_path=db,
                terminate_on_exit=terminate_on_exit,
                runtime=runtime,
                docker_socket=docker_socket,
                executor_socket=executor_socket,
                docker_runtime=docker_runtime,
                log_config=json_object(log_config, "--log-config"),
                mount_base=mount_base,
                auto_prune_images=auto_prune_images,
                auto_prune_containers_older_than_s=auto_prune_containers_older_than_seconds,
                expose=expose,
                log_limit_bytes=log_limit_bytes,
                soft_terminate_grace_s=soft_terminate_grace,
                startup_timeout_s=startup_timeout,
            )
        )
    )
