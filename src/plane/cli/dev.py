"""`plane dev`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from plane.cli.arguments import exposed_paths
from plane.cli.output import show
from plane.decisions.trace_export import traces_are_exported
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError, InvalidClusterName
from plane.protocol.names import parse_cluster_name
from plane.settings import RuntimeKind

if TYPE_CHECKING:
    from rich.table import Table

    from plane.dev.cluster import DevCluster, DevSettings

__all__ = ["dev"]

_PORT = validators.Number(gte=1, lte=65535)


def dev(
    *,
    data_dir: Path = Path(".plane"),
    port: Annotated[int, Parameter(validator=_PORT)] = 8080,
    proxy_port: Annotated[int, Parameter(validator=_PORT)] = 9090,
    public_host: Annotated[list[str] | None, Parameter(negative="")] = None,
    runtime: RuntimeKind = RuntimeKind.AUTO,
    db: str | None = None,
    docker_socket: Path = Path("/var/run/docker.sock"),
    expose: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
) -> None:
    """Run a whole cluster in this process: database, controller, drone, proxy. Ctrl-C ends it.

    Example: plane dev --port 8000 --proxy-port 8001

    Parameters
    ----------
    data_dir
        Folder of the database and of the drone's state store.
    port
        Port of the control API, on 127.0.0.1.
    proxy_port
        Port of the proxy, on 127.0.0.1 (on ::1 where localhost is only that).
    public_host
        Further HOST or HOST:PORT under which browsers reach the proxy, as through a forwarded port; may be given
        several times. localhost and the loopback addresses are served without it.
    runtime
        process: backends are plain processes; docker: containers; auto: processes, and containers for
        spawn configs with "pool": "docker" where an engine responds.
    db
        PostgreSQL 14 or newer to use instead of the embedded one, as postgresql://USER@HOST:PORT/NAME.
    docker_socket
        Unix socket of the Docker engine.
    expose
        Folder below /tmp, /var/tmp, /run or a private home that isolated processes can read, such as a checkout there;
        may be given several times.
    """
    import uvloop

    from plane.cli.logs import set_up_logs
    from plane.dev.cluster import DevSettings

    # The summary shows the progress; the log shows only what may need action.
    set_up_logs("warning")
    settings = DevSettings(
        data_dir=data_dir,
        port=port,
        proxy_port=proxy_port,
        public_hosts=tuple(_public_host(name) for name in public_host or ()),
        runtime=runtime,
        db=db,
        docker_socket=docker_socket,
        expose=exposed_paths(expose),
        traces=traces_are_exported(os.environ),
    )
    uvloop.run(_run(settings))


def _public_host(name: str) -> str:
    try:
        return parse_cluster_name(name)
    except InvalidClusterName:
        raise ConfigurationError(
            f"--public-host {name[:80]!r} is not of the form HOST or HOST:PORT; give the address bar's, without http://"
        ) from None


async def _run(settings: DevSettings) -> None:
    from rich.console import Console

    from plane.cli.serving import until_stopped
    from plane.dev.cluster import start_cluster

    console = Console(highlight=False)
    started = time.monotonic()

    def report(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {what}", soft_wrap=True)

    async with start_cluster(settings, report) as cluster:
        report("ready")
        show(_summary(cluster))
        console.print("\nTry it (open the url of the response in a browser):\n")
        console.print(_curl_line(cluster), soft_wrap=True, markup=False)
        if cluster.embedded_db is not None:
            command = f"\n{shlex.quote(sys.argv[0])} db list-nodes --db {shlex.quote(cluster.embedded_db)}"
            console.print(command, soft_wrap=True, markup=False, style="dim")
        console.print("\n[dim]Ctrl-C ends everything.[/dim]")
        await until_stopped(cluster)


def _summary(cluster: DevCluster) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("Control API", cluster.control_url)
    table.add_row("Proxy", cluster.proxy_url)
    if cluster.demo is not None:
        table.add_row("Front page", f"{cluster.control_url}/")
    for pool, drone in cluster.drones.items():
        table.add_row("Backends", drone.runtime_name + (f' (pool "{pool}")' if pool else ""))
    return table


def _curl_line(cluster: DevCluster) -> str:
    executable = {"command": list(cluster.demo)} if cluster.demo else {"image": "YOUR-IMAGE"}
    body = {
        "key": {"name": "hello"},
        "spawn_config": {"executable": executable, "max_idle_seconds": 60},
    }
    quoted = shlex.quote(codec.encode(body).decode())
    headers = f"-H 'Authorization: Bearer {cluster.api_key}' -H 'Content-Type: application/json'"
    return f"curl -sS {cluster.control_url}/ctrl/connect {headers} -d {quoted}"
