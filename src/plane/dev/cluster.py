"""Starts and stops everything that `plane dev` runs, in order, and says so while it does.

Database, controller, drones, proxy; the end is the reverse. `plane.cli.dev` reads the options.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from plane.controller.running import RunningController, running_controller
from plane.database.embedded_postgres import embedded_postgres
from plane.dev.demo import demo_command, visible_folders
from plane.dev.folder import held_folder
from plane.drone.running import RunningDrone, running_drone
from plane.ownership import run_together
from plane.protocol import codec
from plane.protocol.connect import ClusterState
from plane.protocol.errors import ConfigurationError, why_no_port
from plane.protocol.names import ClusterName, ControllerName, NodeName
from plane.proxy.running import RunningProxy, running_proxy
from plane.runtime.docker_engine import engine_answers
from plane.settings import ControllerSettings, DroneSettings, ProxySettings, RuntimeKind
from plane.transport.controller_url import ControllerUrl

__all__ = ["DevCluster", "DevSettings", "running_cluster"]

HOST = "127.0.0.1"
READY_LIMIT_S = 20.0
READY_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Settings of `plane dev`.

    Attributes:
        data_dir: where database and state stores live.
        port, proxy_port: of the control API and of the proxy, on loopback.
        runtime: ``AUTO`` runs processes, and containers in pool "docker" where an engine answers.
        db: a PostgreSQL to use instead of the embedded one.
        docker_socket: path of the engine's Unix socket.
    """

    data_dir: Path
    port: int = 8080
    proxy_port: int = 9090
    runtime: RuntimeKind = RuntimeKind.AUTO
    db: str | None = None
    docker_socket: Path = Path("/var/run/docker.sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevCluster:
    """A cluster that runs.

    Attributes:
        embedded_db: URL of the embedded database; None where another one is used.
        demo: the demo's argv, None where no drone runs processes.
    """

    controller: RunningController
    drones: dict[str, RunningDrone]
    proxy: RunningProxy
    control_url: str
    proxy_url: str
    embedded_db: str | None
    demo: tuple[str, ...] | None

    async def wait(self) -> None:
        """Never returns; raises when a part died."""
        drones = (drone.wait() for drone in self.drones.values())
        await run_together(self.controller.wait(), self.proxy.wait(), *drones)


@asynccontextmanager
async def running_cluster(settings: DevSettings, say: Callable[[str], None]) -> AsyncIterator[DevCluster]:
    """Everything, while the block runs; ``say`` is told what is being done.

    Raises:
        ConfigurationError: something cannot start; says what to do.
    """
    for port, flag in ((settings.port, "--port"), (settings.proxy_port, "--proxy-port")):
        _require_free(port, flag)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(held_folder(settings.data_dir.resolve()))
        if settings.db is None:
            say(f"PostgreSQL starts in {folder / 'postgres'}")
            db = await stack.enter_async_context(embedded_postgres(folder / "postgres"))
        else:
            db = settings.db
        say("controller starts")
        demo = demo_command() if settings.runtime is not RuntimeKind.DOCKER else None
        cluster = ClusterName(f"localhost:{settings.proxy_port}")
        controller = await stack.enter_async_context(
            running_controller(
                ControllerSettings(
                    db=db,
                    name=ControllerName("co-dev"),
                    host=HOST,
                    port=settings.port,
                    default_cluster=cluster,
                    demo_command=demo,
                )
            )
        )
        control_url = f"http://{HOST}:{controller.port}"
        drones = {}
        for drone_settings in await _drones(settings, folder, cluster, control_url):
            say(f"drone starts ({drone_settings.runtime})")
            drone = await stack.enter_async_context(running_drone(drone_settings))
            drones[drone_settings.pool] = drone
        say("proxy starts")
        proxy = await stack.enter_async_context(
            running_proxy(
                ProxySettings(
                    controller_url=ControllerUrl.parse(control_url),
                    cluster=cluster,
                    name=NodeName("px-dev"),
                    host=HOST,
                    http_port=settings.proxy_port,
                    root_redirect_url=control_url if demo else None,
                )
            )
        )
        await _until_ready(control_url, cluster, len(drones))
        yield DevCluster(
            controller=controller,
            drones=drones,
            proxy=proxy,
            control_url=control_url,
            proxy_url=f"http://{cluster}",
            embedded_db=db if settings.db is None else None,
            demo=demo,
        )
        say("stopping")


async def _drones(settings: DevSettings, folder: Path, cluster: ClusterName, control_url: str) -> list[DroneSettings]:
    """One drone for the wanted runtime; for `AUTO` processes, and Docker in its pool where an engine answers."""
    kinds = {"": settings.runtime}
    if settings.runtime is RuntimeKind.AUTO:
        kinds = {"": RuntimeKind.PROCESS}
        if await engine_answers(settings.docker_socket):
            kinds["docker"] = RuntimeKind.DOCKER
    return [
        DroneSettings(
            controller_url=ControllerUrl.parse(control_url),
            cluster=cluster,
            name=NodeName(f"dr-dev-{kind}"),
            pool=pool,
            db_path=folder / f"drone-{kind}.sqlite",
            terminate_on_exit=True,
            runtime=kind,
            docker_socket=settings.docker_socket,
            expose=visible_folders(),
        )
        for pool, kind in kinds.items()
    ]


def _require_free(port: int, flag: str) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise ConfigurationError(f"port {port} on {HOST} {why_no_port(error)}; choose another with {flag}") from error


async def _until_ready(control_url: str, cluster: str, drones: int) -> None:
    """Return once a connect would work: every drone has sent a heartbeat, and the proxy is connected."""
    url = f"{control_url}/ctrl/c/{cluster}/state"
    try:
        async with asyncio.timeout(READY_LIMIT_S), aiohttp.ClientSession() as http:
            while True:
                async with http.get(url) as answer:
                    state = codec.decode(await answer.read(), ClusterState)
                if len(state.drones) >= drones and state.proxies:
                    return
                await asyncio.sleep(READY_POLL_S)
    except TimeoutError:
        raise ConfigurationError(
            f"drone or proxy did not reach the controller within {READY_LIMIT_S:.0f} s; the log above says why"
        ) from None
