"""Starts and stops a controller: database, event bus, background loops, HTTP server; stops them in reverse order."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import structlog
from aiohttp import web

from plane import timing
from plane.controller.api.admitted_requests import AdmittedRequests
from plane.controller.api.api_keys import ApiKeyFile, reload_on_sighup
from plane.controller.api.auth import source_rules, warn_if_open
from plane.controller.api.connect_fast_path import ConnectFastPath
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.forward_auth import connect_forward_auth
from plane.controller.api.http_connection import HttpConnection, server_logger
from plane.controller.api.prometheus import INSTRUMENTS
from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.responses import ERROR_RESPONSES, ErrorResponses
from plane.controller.api.stream_registry import StreamRegistry
from plane.controller.app import make_app
from plane.controller.batched_statements import BatchedStatements
from plane.controller.connect_statements import ConnectStatements
from plane.controller.console.routes import start_console
from plane.controller.context import Context
from plane.controller.feed_tail import FeedTail
from plane.controller.nodes.metrics_cache import MetricsCache
from plane.controller.nodes.node_registry import NodeRegistry
from plane.controller.upkeep.cleaner import run_cleaner
from plane.controller.upkeep.database_clock import DatabaseWatch
from plane.controller.upkeep.reaper import run_reaper
from plane.controller.upkeep.supervised_loop import run_supervised
from plane.controller.upkeep.sweeper import run_sweeper
from plane.controller.webhooks.dispatcher import WebhookDispatcher
from plane.database import nodes
from plane.database.clock import accept_restart
from plane.database.event_bus import EventBus
from plane.database.migrate import migrate
from plane.database.pool import Database, DatabaseUnavailable, open_database
from plane.decisions.http.unproven_connections import unproven_limit
from plane.fd_limit import raise_fd_limit
from plane.protocol.addresses import format_socket_address
from plane.protocol.notifications import EventKind
from plane.settings import ControllerSettings
from plane.tasks import end_tasks, until_one_ends
from plane.tracing.export import start_tracing
from plane.transport.port_errors import port_error
from plane.version import this_version

__all__ = ["ControllerServer", "start_controller"]

BUS_START_TIMEOUT_S = 10.0
ACCEPT_BACKLOG = 1024

log = structlog.get_logger("plane.controller")


class _Servers:
    """The listening sockets of a controller."""

    def __init__(self, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self._accept = accept
        self._open: list[asyncio.Server] = []

    async def add(self, listener: socket.socket) -> None:
        """Accept connections on ``listener``.

        Raises:
            OSError: another program listens there.
        """
        loop = asyncio.get_running_loop()
        # uvloop does this too, but does not report an error.
        listener.listen(ACCEPT_BACKLOG)
        self._open.append(await loop.create_server(self._accept, sock=listener, backlog=ACCEPT_BACKLOG))

    def close(self) -> None:
        """Stop accepting connections; open ones stay open."""
        for server in self._open:
            server.close()


class ControllerServer:
    """A controller that is serving. ``port`` is its port, also where port 0 was configured."""

    def __init__(self, port: int, tasks: list[asyncio.Task[None]], servers: _Servers) -> None:
        self.port = port
        self._tasks = tasks
        self._servers = servers

    async def listen(self, listener: socket.socket) -> None:
        """Accept connections on another bound socket too; it is closed with the controller.

        Raises:
            OSError: another program listens there.
        """
        await self._servers.add(listener)

    async def wait(self) -> None:
        """Wait for the background loops, which survive their errors: never returns in normal operation."""
        await until_one_ends(self._tasks)


@asynccontextmanager
async def start_controller(
    settings: ControllerSettings, endpoints: Sequence[Endpoint] = ()
) -> AsyncIterator[ControllerServer]:
    """Migrate the database, and run a controller while the block runs.

    Args:
        settings: the controller's.
        endpoints: served beside the API, and not part of its description.

    Raises:
        ConfigurationError: the database or the port cannot be used; the message has the reason.
    """
    listener = _bind(settings.host, settings.port)
    port: int = listener.getsockname()[1]
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        tracer = await stack.enter_async_context(start_tracing("plane-controller", enabled=settings.traces))
        keys = ApiKeyFile(settings.api_key_file) if settings.api_key_file else None
        admitted = AdmittedRequests()
        if keys is not None:
            stack.enter_context(reload_on_sighup(keys, admitted.end_withdrawn, asyncio.get_running_loop()))
        auth_server = (
            await stack.enter_async_context(connect_forward_auth(settings.forward_auth, settings.limits.forward_auth_s))
            if settings.forward_auth
            else None
        )
        warn_if_open(settings)
        await migrate(settings.db)
        db = await stack.enter_async_context(open_database(settings.db))
        if settings.owns_database:
            await accept_restart(db)
        bus = EventBus(db, max_queued=settings.limits.queued_events)
        connect = ConnectStatements(db)
        tail = FeedTail(db)
        context = Context(
            settings=settings,
            public_url=settings.controller_url or f"http://{format_socket_address(settings.host, port)}",
            db=db,
            bus=bus,
            connect_statements=connect,
            statements=BatchedStatements(db, connect),
            metrics=MetricsCache(bus),
            nodes=NodeRegistry(),
            streams=StreamRegistry(),
            feed_tail=tail,
            webhooks=WebhookDispatcher(
                db, tail, f"{settings.name} {secrets.token_hex(8)}", settings.webhook_allowed_networks
            ),
            api_keys=keys or settings.fixed_api_keys,
            admitted=admitted,
            forward_auth=auth_server,
            source_rules=source_rules(settings),
            tracer=tracer,
        )
        stack.enter_context(bus.subscribe_callback(connect.on_state_event, EventKind.BACKEND_STATE))
        stack.enter_context(bus.subscribe_callback(tail.on_state_event, EventKind.BACKEND_STATE))
        errors = ErrorResponses()
        console = await stack.enter_async_context(start_console(context, errors))
        await nodes.controller_heartbeat(db, settings.name, this_version(), online=True)
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "event bus": bus.run,
            "heartbeat": partial(_send_heartbeats, db, settings),
            "batched statements": context.statements.run,
            "metrics": context.metrics.run,
            "sweeper": partial(run_sweeper, db, context.nodes),
            "reaper": partial(run_reaper, db),
            "cleaner": partial(run_cleaner, db, settings),
            "event feed": tail.run,
            "webhooks": context.webhooks.run,
            "database watch": DatabaseWatch(db, bus, connect, context.nodes).run,
        }
        tasks = [asyncio.create_task(run_supervised(name, loop), name=name) for name, loop in loops.items()]
        try:
            async with asyncio.timeout(BUS_START_TIMEOUT_S):
                await bus.listening.wait()
            async with _serving(make_app(context, console, errors, endpoints), context, listener) as servers:
                log.info("controller listening", name=settings.name, host=settings.host, port=port)
                yield ControllerServer(port, tasks, servers)
                # New and returning clients must connect to another controller.
                servers.close()
                await _go_offline(context)
        finally:
            await end_tasks(tasks)


async def _send_heartbeats(db: Database, settings: ControllerSettings) -> None:
    while True:
        await asyncio.sleep(timing.HEARTBEAT_INTERVAL_S)
        try:
            await nodes.controller_heartbeat(db, settings.name, this_version(), online=True)
        except DatabaseUnavailable as error:
            log.warning("controller heartbeat not stored", error=str(error))


async def _go_offline(context: Context) -> None:
    """Mark the controller offline, so that its drones get no new backends, and disconnect its nodes and streams."""
    log.info("controller stopping", name=context.settings.name)
    try:
        await nodes.controller_heartbeat(context.db, context.settings.name, this_version(), online=False)
    except DatabaseUnavailable as error:
        log.warning("controller not marked offline", error=str(error))
    context.streams.end_all()
    await context.nodes.close_all()
    # The last messages of nodes are still stored.
    with suppress(TimeoutError):
        async with asyncio.timeout(context.settings.limits.shutdown_grace_s):
            await context.statements.wait_idle()


def _bind(host: str, port: int) -> socket.socket:
    """Return the listening socket. It is bound before anything else is touched.

    Raises:
        ConfigurationError
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=ACCEPT_BACKLOG)
    except OSError as error:
        raise port_error(error, host, port, "--port") from error


@asynccontextmanager
async def _serving(app: web.Application, context: Context, listener: socket.socket) -> AsyncIterator[_Servers]:
    limits = context.settings.limits
    runner = web.AppRunner(app, shutdown_timeout=limits.shutdown_grace_s)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    deadlines = RequestDeadlines(unproven_limit(raise_fd_limit()), limits.head_s)
    # Like the runner's server would create it, but of another class.
    general = partial(
        HttpConnection,
        runner.server,
        loop=loop,
        access_log=None,
        logger=server_logger(),
        keepalive_timeout=limits.keep_alive_s,
        deadlines=deadlines,
        errors=app[ERROR_RESPONSES],
    )
    fast_path = ConnectFastPath(context, app[INSTRUMENTS], app[ERROR_RESPONSES], general, deadlines)
    servers = _Servers(fast_path.accept)
    await servers.add(listener)
    try:
        yield servers
    finally:
        servers.close()
        await asyncio.gather(fast_path.stop(limits.shutdown_grace_s), runner.cleanup())
