"""Starts the parts of `plane dev` in order (database, controller, drones, proxy), and stops them in reverse.

`plane.cli.dev` reads the options. The control API's port opens last: drones and proxy connect to the controller at an
internal port. A client that waits for the control API therefore finds a cluster in which a connect works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

from plane.controller.server import ControllerServer, start_controller
from plane.database.embedded.server import embedded_postgres
from plane.decisions.access import Role, key_entry, parse_api_keys
from plane.decisions.dev.addresses import IPV4, loopback_hosts
from plane.decisions.dev.readiness import missing_part
from plane.decisions.http.trusted_proxies import parse_networks
from plane.dev.access_key import generate_key, installation_id, load_key, publish_key
from plane.dev.demo import demo_command, demo_user, visible_folders
from plane.dev.folder import lock_folder
from plane.dev.front_page import front_page_endpoints
from plane.dev.ports import bind_ports, localhost_address
from plane.drone.server import DroneServer, start_drone
from plane.protocol import codec
from plane.protocol.addresses import format_socket_address
from plane.protocol.control_api import ClusterState
from plane.protocol.errors import ConfigurationError
from plane.protocol.names import ClusterName, ControllerName, NodeName
from plane.proxy.server import ProxyServer, start_proxy
from plane.runtime.docker.engine import engine_is_available
from plane.runtime.process.bubblewrap import bubblewrap_works
from plane.settings import ControllerSettings, DroneSettings, ProxySettings, RuntimeKind
from plane.tasks import run_together
from plane.transport.controller_url import ControllerUrl
from plane.transport.port_errors import port_error

__all__ = ["DevCluster", "DevSettings", "start_cluster"]

# A start takes a second; on a busy machine, many.
READY_TIMEOUT_S = 60.0
READY_POLL_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Settings of `plane dev`.

    Attributes:
        data_dir: the folder of the database and the state stores.
        port, proxy_port: of the control API and of the proxy, on loopback.
        public_hosts: further host names of the proxy.
        runtime: ``AUTO`` runs processes, and containers in the pool "docker" if an engine is available.
        db: a PostgreSQL to use instead of the embedded one.
        docker_socket: path of the engine's Unix socket.
        expose: folders that isolated processes can read although they are below a private one, such as /tmp.
        traces: export traces to the collector that the environment names.
    """

    data_dir: Path
    port: int = 8080
    proxy_port: int = 9090
    public_hosts: tuple[str, ...] = ()
    runtime: RuntimeKind = RuntimeKind.AUTO
    db: str | None = field(default=None, repr=False)
    docker_socket: Path = Path("/var/run/docker.sock")
    expose: tuple[Path, ...] = ()
    traces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DevCluster:
    """A running cluster.

    Attributes:
        api_key: for the control API, with the role admin.
        embedded_db: URL of the embedded database; None if another one is used.
        demo: the demo's argv; None if no drone runs processes.
    """

    controller: ControllerServer
    drones: dict[str, DroneServer]
    proxy: ProxyServer
    control_url: str
    api_key: str = field(repr=False)
    proxy_url: str
    embedded_db: str | None
    demo: tuple[str, ...] | None

    async def wait(self) -> None:
        """Wait for the parts: returns or raises when one of them ends, which none does in normal operation."""
        drones = (drone.wait() for drone in self.drones.values())
        await run_together(self.controller.wait(), self.proxy.wait(), *drones)


@asynccontextmanager
async def start_cluster(settings: DevSettings, report: Callable[[str], None]) -> AsyncIterator[DevCluster]:
    """Run the cluster while the block runs; ``report`` gets a line about each step.

    Raises:
        ConfigurationError: a part cannot start; the message says what to do.
    """
    if settings.port == settings.proxy_port:
        raise ConfigurationError(f"--port and --proxy-port are both {settings.port}; choose another for one of them")
    proxy_address = localhost_address()
    async with AsyncExitStack() as stack:
        control_listener, _ = stack.enter_context(
            bind_ports((IPV4, settings.port, "--port"), (proxy_address, settings.proxy_port, "--proxy-port"))
        )
        folder = stack.enter_context(lock_folder(settings.data_dir.resolve()))
        if settings.db is None:
            report(f"starting PostgreSQL in {folder / 'postgres'}")
            db = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        else:
            db = settings.db
        report("starting controller")
        demo = demo_command() if settings.runtime is not RuntimeKind.DOCKER else None
        cluster = ClusterName(f"localhost:{settings.proxy_port}")
        control_url = f"http://{IPV4}:{settings.port}"
        started = time.monotonic()
        key, node_key = load_key(folder), generate_key()
        controller = await stack.enter_async_context(
            start_controller(
                ControllerSettings(
                    db=db,
                    name=ControllerName("co-dev"),
                    host=IPV4,
                    port=0,
                    controller_url=control_url,
                    default_cluster=cluster,
                    fixed_api_keys=parse_api_keys(
                        f"{key_entry('dev', Role.ADMIN, key)}\n{key_entry('dev-nodes', Role.NODE, node_key)}"
                    ),
                    owns_database=settings.db is None,
                    traces=settings.traces,
                    # Receivers under development are on this machine.
                    webhook_allowed_networks=parse_networks(("127.0.0.0/8", "::1")),
                ),
                endpoints=() if demo is None else front_page_endpoints(demo),
            )
        )
        internal_url = f"http://{IPV4}:{controller.port}"
        nodes_url = ControllerUrl(internal_url, node_key)
        drones = {}
        for drone_settings in await _drones(settings, folder, cluster, nodes_url, installation_id(key)):
            report(f"starting drone ({drone_settings.runtime})")
            drone = await stack.enter_async_context(start_drone(drone_settings))
            drones[drone_settings.pool] = drone
        report("starting proxy")
        proxy = await stack.enter_async_context(
            start_proxy(
                ProxySettings(
                    controller_url=nodes_url,
                    cluster=cluster,
                    name=NodeName("px-dev"),
                    host=proxy_address,
                    public_hosts=(*loopback_hosts(settings.proxy_port), *settings.public_hosts),
                    http_port=settings.proxy_port,
                    root_redirect_url=control_url if demo else None,
                    traces=settings.traces,
                )
            )
        )
        proxy_url = f"http://{format_socket_address(proxy_address, settings.proxy_port)}"
        await _wait_until_ready(ControllerUrl(internal_url, key), proxy_url, cluster, len(drones), started)
        stack.enter_context(publish_key(folder, control_url, settings.port))
        try:
            await controller.listen(control_listener)
        except OSError as error:
            raise port_error(error, IPV4, settings.port, "--port") from error
        yield DevCluster(
            controller=controller,
            drones=drones,
            proxy=proxy,
            control_url=control_url,
            api_key=key,
            proxy_url=f"http://{cluster}",
            embedded_db=db if settings.db is None else None,
            demo=demo,
        )
        report("stopping")


async def _drones(
    settings: DevSettings, folder: Path, cluster: ClusterName, controller_url: ControllerUrl, installation: str
) -> list[DroneSettings]:
    """Return the settings of one drone for the runtime; for `AUTO`, of a second one for Docker if available."""
    kinds = {"": settings.runtime}
    if settings.runtime is RuntimeKind.AUTO:
        kinds = {"": RuntimeKind.PROCESS}
        if await engine_is_available(settings.docker_socket):
            kinds["docker"] = RuntimeKind.DOCKER
    user = demo_user(isolated=await bubblewrap_works())
    return [
        DroneSettings(
            controller_url=controller_url,
            cluster=cluster,
            name=NodeName(f"dr-dev-{kind}"),
            installation=installation,
            pool=pool,
            db_path=folder / f"drone-{kind}.sqlite",
            terminate_on_exit=True,
            runtime=kind,
            docker_socket=settings.docker_socket,
            expose=(*visible_folders(), *settings.expose),
            # The database may be in another folder, and belong to the user that runs the backends.
            hide=(folder, *((folder / "postgres" / entry).resolve().parent for entry in ("data", "socket"))),
            backend_user=user,
            traces=settings.traces,
        )
        for pool, kind in kinds.items()
    ]


async def _wait_until_ready(
    controller_url: ControllerUrl, proxy_url: str, cluster: str, drones: int, started: float
) -> None:
    """Return when a connect works, and a request for its URL.

    Args:
        started: when this process's controller started, by the monotonic clock.

    Raises:
        ConfigurationError: not within the timeout; the message says what is missing.
    """
    state_url = controller_url.http(f"/ctrl/c/{cluster}/state")
    missing = "the controller does not respond"
    try:
        async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession() as http:
            while missing:
                async with http.get(state_url, headers=controller_url.headers) as response:
                    state = codec.decode(await response.read(), ClusterState)
                async with http.get(f"{proxy_url}/ready") as response:
                    proxy_ready = response.status == HTTPStatus.OK
                missing = missing_part(state, drones, time.monotonic() - started, proxy_ready=proxy_ready)
                await asyncio.sleep(READY_POLL_INTERVAL_S if missing else 0)
    except TimeoutError:
        raise ConfigurationError(f"not ready within {READY_TIMEOUT_S:.0f} s: {missing}; see the log above") from None
