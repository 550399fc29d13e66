"""Starts and stops a controller: database, event bus, heartbeat, HTTP server, and their end in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import structlog
from aiohttp import web

from plane import timing
from plane.controller.api.api_keys import ApiKeyFile, reloading_on_sighup
from plane.controller.api.auth import source_rules, warn_if_open
from plane.controller.api.connect_fast_path import ConnectLane
from plane.controller.api.forward_auth import forward_auth
from plane.controller.api.http_connection import HttpConnection
from plane.controller.api.prometheus import INSTRUMENTS
from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.server_log import server_logger
from plane.controller.api.stream_registry import OpenStreams
from plane.controller.app import make_app
from plane.controller.batched_statements import Writes
from plane.controller.context import Context
from plane.controller.nodes.metrics_cache import LatestMetrics
from plane.controller.nodes.node_registry import OpenSockets
from plane.controller.upkeep.cleaner import clean_for_ever
from plane.controller.upkeep.database_clock import DatabaseWatch
from plane.controller.upkeep.reaper import reap_for_ever
from plane.controller.upkeep.supervised_loop import run_supervised
from plane.controller.upkeep.sweeper import sweep_for_ever
from plane.database import nodes
from plane.database.clock import accept_restart
from plane.database.event_bus import EventBus
from plane.database.migrate import migrate
from plane.database.pool import Database, DatabaseUnavailable, open_database
from plane.decisions.http.unproven_connections import unproven_limit
from plane.fd_limit import raise_fd_limit
from plane.protocol.addresses import format_socket_address
from plane.protocol.errors import ConfigurationError, why_no_port
from plane.protocol.notifications import EventKind
from plane.settings import ControllerSettings
from plane.tasks import end_tasks, until_one_ends
from plane.version import this_version

__all__ = ["RunningController", "running_controller"]

BUS_START_LIMIT_S = 10.0
ACCEPT_BACKLOG = 1024
# Longer than the proxies in front of it: who closes first must be the client.
KEEP_ALIVE_S = 3630.0

log = structlog.get_logger("plane.controller")


class _Servers:
    """The sockets at which a controller accepts connections."""

    def __init__(self, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self._accept = accept
        self._open: list[asyncio.Server] = []

    async def add(self, listener: socket.socket) -> None:
        """Accept connections at ``listener`` from now on."""
        loop = asyncio.get_running_loop()
        self._open.append(await loop.create_server(self._accept, sock=listener, backlog=ACCEPT_BACKLOG))

    def close(self) -> None:
        """Accept no more connections; those that are open stay."""
        for server in self._open:
            server.close()


class RunningController:
    """A controller that listens. ``port`` is the one it got."""

    def __init__(self, port: int, tasks: list[asyncio.Task[None]], servers: _Servers) -> None:
        self.port = port
        self._tasks = tasks
        self._servers = servers

    async def listen(self, listener: socket.socket) -> None:
        """Accept connections at another bound socket too, which is closed with the controller.

        Raises:
            OSError: another program listens there.
        """
        await self._servers.add(listener)

    async def wait(self) -> None:
        """Never returns: every part of the controller survives its errors."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def running_controller(settings: ControllerSettings) -> AsyncIterator[RunningController]:
    """A controller that listens while the block runs. Migrates the database first.

    Raises:
        ConfigurationError: the database or the port cannot be used; says why.
    """
    listener = _bind(settings.host, settings.port)
    port: int = listener.getsockname()[1]
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        keys = ApiKeyFile(settings.api_key_file) if settings.api_key_file else None
        if keys is not None:
            stack.enter_context(reloading_on_sighup(keys, asyncio.get_running_loop()))
        door = await stack.enter_async_context(forward_auth(settings.forward_auth)) if settings.forward_auth else None
        warn_if_open(settings)
        await migrate(settings.db)
        db = await stack.enter_async_context(open_database(settings.db))
        if settings.owns_database:
            await accept_restart(db)
        bus = EventBus(db)
        context = Context(
            settings=settings,
            public_url=settings.controller_url or f"http://{format_socket_address(settings.host, port)}",
            db=db,
            bus=bus,
            writes=Writes(db),
            metrics=LatestMetrics(bus),
            sockets=OpenSockets(),
            streams=OpenStreams(),
            api_keys=keys or settings.fixed_api_keys,
            forward_auth=door,
            source_rules=source_rules(settings),
        )
        stack.enter_context(bus.calling(context.writes.hear, EventKind.BACKEND_STATE))
        await nodes.controller_heartbeat(db, settings.name, this_version(), online=True)
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "event bus": bus.run,
            "heartbeat": partial(_beat, db, settings),
            "writes": context.writes.run,
            "metrics": context.metrics.run,
            "sweeper": partial(sweep_for_ever, context),
            "reaper": partial(reap_for_ever, db),
            "cleaner": partial(clean_for_ever, db, settings),
            "database watch": DatabaseWatch(db, bus, context.writes).run,
        }
        tasks = [asyncio.create_task(run_supervised(name, loop), name=name) for name, loop in loops.items()]
        try:
            async with asyncio.timeout(BUS_START_LIMIT_S):
                await bus.listening.wait()
            async with _serving(context, listener) as servers:
                log.info("controller listens", name=settings.name, host=settings.host, port=port)
                yield RunningController(port, tasks, servers)
                # Whoever comes now, or comes back, is to go to another controller.
                servers.close()
                await _say_offline(context)
        finally:
            await end_tasks(tasks)


async def _beat(db: Database, settings: ControllerSettings) -> None:
    while True:
        await asyncio.sleep(timing.HEARTBEAT_INTERVAL_S)
        try:
            await nodes.controller_heartbeat(db, settings.name, this_version(), online=True)
        except DatabaseUnavailable as error:
            log.warning("heartbeat not stored", error=str(error))


async def _say_offline(context: Context) -> None:
    """No new backends for drones of this controller, and its nodes go to another at once."""
    log.info("controller stops", name=context.settings.name)
    try:
        await nodes.controller_heartbeat(context.db, context.settings.name, this_version(), online=False)
    except DatabaseUnavailable as error:
        log.warning("going offline not stored", error=str(error))
    context.streams.end_all()
    await context.sockets.close_all()
    # What nodes said last is still written.
    with suppress(TimeoutError):
        async with asyncio.timeout(timing.CONTROLLER_SHUTDOWN_GRACE_S):
            await context.writes.until_idle()


def _bind(host: str, port: int) -> socket.socket:
    """The listening socket, bound before anything else is touched.

    Raises:
        ConfigurationError
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=ACCEPT_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"port {port} on {host} {why_no_port(error)}; choose another with --port") from error


@asynccontextmanager
async def _serving(context: Context, listener: socket.socket) -> AsyncIterator[_Servers]:
    app = make_app(context)
    runner = web.AppRunner(app, shutdown_timeout=timing.CONTROLLER_SHUTDOWN_GRACE_S)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    deadlines = RequestDeadlines(unproven_limit(raise_fd_limit()))
    # As the runner's server would make it, but for the class.
    general = partial(
        HttpConnection,
        runner.server,
        loop=loop,
        access_log=None,
        logger=server_logger(),
        keepalive_timeout=KEEP_ALIVE_S,
        deadlines=deadlines,
    )
    lane = ConnectLane(context, app[INSTRUMENTS], general, deadlines, KEEP_ALIVE_S)
    servers = _Servers(lane.accept)
    await servers.add(listener)
    try:
        yield servers
    finally:
        servers.close()
        await asyncio.gather(lane.stop(timing.CONTROLLER_SHUTDOWN_GRACE_S), runner.cleanup())
