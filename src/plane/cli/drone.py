"""`plane drone`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from plane.cli.arguments import cluster_name, ip_address, node_name
from plane.cli.controller_access import KeyFileOption, controller_access, key_files
from plane.cli.runtime_options import RuntimeOptions
from plane.decisions.trace_export import traces_are_exported
from plane.protocol.names import Prefix
from plane.settings import DroneSettings

__all__ = ["drone"]


def drone(
    *,
    controller_url: str,
    cluster: str,
    controller_key_file: KeyFileOption = None,
    name: str | None = None,
    ip: str = "127.0.0.1",
    pool: str = "",
    db: Path | None = None,
    terminate_on_exit: Annotated[bool, Parameter(negative=())] = False,
    executor_socket: Path | None = None,
    metrics_port: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=65535))] = None,
    metrics_host: str = "127.0.0.1",
    options: RuntimeOptions | None = None,
) -> None:
    """Run a drone: it starts and ends backends on this machine.

    Example: plane drone --controller-url http://10.0.0.1:8080 --cluster plane.example.com
    --db /var/lib/plane/drone.sqlite

    Parameters
    ----------
    controller_url
        The controller, as http://HOST:PORT or https://HOST.
    cluster
        Cluster of this drone, as HOST or HOST:PORT.
    name
        Name of this drone, dr-…; default the one in its state store, random at first.
    ip
        Address, or host name, at which proxies reach the backends of this drone.
    pool
        Pool of this drone; default none.
    db
        File of the state store; default in memory, so that backends end with the drone. With a file they continue
        when the drone stops, and its next start adopts them.
    terminate_on_exit
        End all backends when the drone stops, and those of a former process when it starts.
    executor_socket
        Unix socket of an external executor that runs the backends; see `plane executor`.
    metrics_port
        Port of /metrics for Prometheus, /livez and /readyz. Default: none of them.
    metrics_host
        Address for the same; 0.0.0.0 for Prometheus on another machine.
    """
    from plane.cli.serving import serve
    from plane.drone.server import start_drone

    runtime = (options or RuntimeOptions()).settings()
    runtime["hide"] = (*runtime.get("hide", ()), *key_files(controller_key_file))
    serve(
        start_drone(
            DroneSettings(
                controller_url=controller_access(controller_url, controller_key_file),
                cluster=cluster_name(cluster),
                name=None if name is None else node_name(name, Prefix.DRONE),
                ip=ip_address(ip),
                pool=pool,
                db_path=db,
                terminate_on_exit=terminate_on_exit,
                executor_socket=executor_socket,
                metrics_host=metrics_host,
                metrics_port=metrics_port,
                traces=traces_are_exported(os.environ),
                **runtime,
            )
        )
    )
