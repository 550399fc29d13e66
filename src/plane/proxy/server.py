"""Starts and stops a proxy: its ports, its workers, its certificate, and its connection to a controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from plane.protocol.errors import ConfigurationError
from plane.protocol.proxy_messages import MessageFromProxy
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.controller_link import ControllerLink, MessageHandler
from plane.proxy.data_plane import client_connection
from plane.proxy.listeners.entry_points import EntryPoints, bind
from plane.proxy.listeners.serving import certificate_files, serving
from plane.proxy.processes.hot_restart import HotRestart, predecessor
from plane.proxy.processes.workers import Workers
from plane.proxy.service import SERVICE, ProxyService
from plane.settings import ProxySettings
from plane.tasks import end_tasks, until_one_ends
from plane.tracing.export import start_tracing
from plane.tracing.span import Tracer

if TYPE_CHECKING:
    from plane.proxy.certificates.renewer import CertificateRenewer

__all__ = ["ProxyServer", "start_proxy"]

log = structlog.get_logger("plane.proxy")


class ProxyServer:
    """A proxy that listens.

    Attributes:
        port: the port of plain HTTP.
        https_port: the port of TLS; None without TLS.
        service: the state that its connections share; None where workers serve.
    """

    def __init__(
        self,
        entry_points: EntryPoints,
        service: ProxyService | None,
        tasks: list[asyncio.Task[None]],
        hot_restart: HotRestart | None,
    ) -> None:
        self.service = service
        self.port = entry_points.http_port
        self.https_port = entry_points.https_port
        self._tasks = tasks
        self._hot_restart = hot_restart

    async def wait(self) -> None:
        """Return when another process has taken over. Raise what ended a part of the proxy."""
        await until_one_ends(self._tasks)

    def restart(self) -> None:
        """Have a new process take over the ports. Does nothing without a command that starts one."""
        if self._hot_restart is not None:
            self._hot_restart.request()


@asynccontextmanager
async def start_proxy(
    settings: ProxySettings, *, worker_command: Sequence[str] = (), successor_command: Sequence[str] = ()
) -> AsyncIterator[ProxyServer]:
    """Run a proxy while the block runs.

    Args:
        worker_command: starts a worker; required for more than one.
        successor_command: starts a process that takes over the ports; empty: no hot restart.

    Raises:
        ConfigurationError: a port or the certificate cannot be used.
    """
    link = ControllerLink(settings)
    certificates = CertificateHolder()
    files = certificate_files(settings)
    if files is not None:
        files.load(certificates, required=settings.acme is None)
    renewer = None
    if settings.acme is not None:
        if settings.workers > 1 and settings.cert_path is None:
            raise ConfigurationError("workers read the ordered certificate from a file: --workers needs --cert-path")
        # The libraries of ACME are imported only where it is used.
        from plane.proxy.certificates.renewer import CertificateRenewer

        renewer = CertificateRenewer(settings.acme, settings.cluster, certificates, files, link.request_certificate)
    former = predecessor()
    entry_points = EntryPoints(former.http, former.https) if former is not None else _bind(settings)
    connection = _ControllerConnection(link)
    hot_restart = HotRestart(successor_command, entry_points, connection.leave) if successor_command else None
    tasks: list[asyncio.Task[None]] = []
    renewing: list[asyncio.Task[None]] = []
    service: ProxyService | None = None
    # Ended in reverse order: a held lease is released, and responses in flight finish, while there is still a
    # connection to the controller.
    async with AsyncExitStack() as stack:
        # Workers export their own; here it is found out whether they can.
        tracer = await stack.enter_async_context(start_tracing(SERVICE, enabled=settings.traces))
        stack.push_async_callback(end_tasks, tasks)
        if settings.workers > 1:
            handler: MessageHandler
            handler = workers = Workers(settings, worker_command, entry_points, link.send)
            tasks.append(asyncio.create_task(workers.run(), name="workers"))
            if files is not None:
                tasks.append(asyncio.create_task(files.watch(certificates), name="certificate files"))
            stack.push_async_callback(workers.stop)
            stack.callback(entry_points.close)
        else:
            handler = service = _service(settings, link, tracer)
            tasks += await stack.enter_async_context(serving(settings, service, entry_points, certificates))
        stack.push_async_callback(end_tasks, renewing)
        _log_start(settings, entry_points)
        if former is not None:
            await former.leave_controller()
        tasks.append(asyncio.create_task(connection.run(handler, renewer), name="controller connection"))
        if renewer is not None:
            renewing.append(asyncio.create_task(renewer.run(), name="certificate"))
        ends = [*tasks, *renewing]
        if hot_restart is not None:
            tasks.append(asyncio.create_task(hot_restart.run(), name="hot restart"))
            ends.append(tasks[-1])
        try:
            yield ProxyServer(entry_points, service, ends, hot_restart)
        finally:
            log.info("proxy stops", name=settings.name)


class _ControllerConnection:
    """The connection to the controller, until another process takes it over."""

    def __init__(self, link: ControllerLink) -> None:
        self._link = link
        self._leave = asyncio.Event()
        self._left = asyncio.Event()

    async def run(self, handler: MessageHandler, renewer: CertificateRenewer | None) -> None:
        """Never return. Raise what ended the link."""
        parts = [asyncio.create_task(self._link.run(handler, renewer)), asyncio.create_task(self._wait_for_leave())]
        try:
            await until_one_ends(parts)
        finally:
            await end_tasks(parts)
        self._left.set()
        await asyncio.Event().wait()

    async def _wait_for_leave(self) -> None:
        await self._leave.wait()

    async def leave(self) -> None:
        """Close it, and never connect again."""
        self._leave.set()
        await self._left.wait()


def _service(settings: ProxySettings, link: ControllerLink, tracer: Tracer | None) -> ProxyService:
    """Return the service of the only process that serves."""

    async def request_routes(tokens: Sequence[str]) -> None:
        await link.request_routes(tokens)

    async def keep_alive(backend_id: str) -> None:
        await link.send(MessageFromProxy(keep_alive=backend_id))

    return ProxyService(settings, request_routes, keep_alive, tracer)


def _bind(settings: ProxySettings) -> EntryPoints:
    http = bind(settings.host, settings.http_port, "--http-port", settings.workers)
    if settings.https_port is None:
        return EntryPoints(http)
    try:
        return EntryPoints(http, bind(settings.host, settings.https_port, "--https-port", settings.workers))
    except ConfigurationError:
        for bound in http:
            bound.close()
        raise


def _log_start(settings: ProxySettings, entry_points: EntryPoints) -> None:
    log.info(
        "proxy listens",
        name=settings.name,
        cluster=settings.cluster,
        host=settings.host,
        port=entry_points.http_port,
        https_port=entry_points.https_port,
        workers=settings.workers,
        # See docs/decisions/0023-compiled-data-plane.md.
        compiled=not client_connection.__file__.endswith(".py"),
    )
