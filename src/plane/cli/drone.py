"""`plane drone`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from plane import timing
from plane.cli.arguments import cluster_name, ip_address, node_name
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
    runtime: RuntimeKind = RuntimeKind.AUTO,
    docker_socket: Path = Path("/var/run/docker.sock"),
    soft_terminate_grace: Annotated[float, Parameter(validator=validators.Number(gt=0))] = (
        timing.SOFT_TERMINATE_GRACE_S
    ),
    startup_timeout: Annotated[float, Parameter(validator=validators.Number(gt=0))] = timing.STARTUP_TIMEOUT_S,
) -> None:
    """Run a drone: starts and ends backends on this machine as the controller orders.

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
        File of the state store; default in memory.
    runtime
        What runs backends: docker, process, or auto for Docker where an engine answers, else processes.
    docker_socket
        Unix socket of the Docker engine.
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
                runtime=runtime,
                docker_socket=docker_socket,
                soft_terminate_grace_s=soft_terminate_grace,
                startup_timeout_s=startup_timeout,
            )
        )
    )
