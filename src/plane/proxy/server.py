"""Starts and stops a proxy: its ports, its connection to a controller, its workers if any, and their end in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from plane.protocol.errors import ConfigurationError
from plane.protocol.proxy_messages import MessageFromProxy, RouteInfoRequest
from plane.proxy.certificates.renewer import CertKeeper
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.controller_link import ControllerLink
from plane.proxy.listeners.entry_points import EntryPoints, bind
from plane.proxy.listeners.serving import certificate_files, serving
from plane.proxy.processes.hot_restart import Handover, predecessor
from plane.proxy.processes.workers import Workers
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.tasks import end_tasks, until_one_ends

__all__ = ["ProxyServer", "start_proxy"]

log = structlog.get_logger("plane.proxy")


class ProxyServer:
    """A proxy that listens.

    Attributes:
        port: of plain HTTP; the one it got.
        https_port: of TLS; None without it.
        service: what its connections share; None where workers serve.
    """

    def __init__(
        self,
        entrances: EntryPoints,
        service: ProxyService | None,
        tasks: list[asyncio.Task[None]],
        handover: Handover | None,
    ) -> None:
        self.service = service
        self.port = entrances.http_port
        self.https_port = entrances.https_port
        self._tasks = tasks
        self._handover = handover

    async def wait(self) -> None:
        """Return when another process has taken over; raises when a part of the proxy died."""
        await until_one_ends(self._tasks)

    def hand_over(self) -> None:
        """Have a new process take over. Does nothing without a command for one."""
        if self._handover is not None:
            self._handover.ask()


@asynccontextmanager
async def start_proxy(
    settings: ProxySettings, *, worker_command: Sequence[str] = (), successor_command: Sequence[str] = ()
) -> AsyncIterator[ProxyServer]:
    """A proxy that listens while the block runs.

    Args:
        worker_command: starts a worker; needed for more than one.
        successor_command: starts a process that can take over; empty if none can.

    Raises:
        ConfigurationError: a port or the certificate cannot be used; says why.
    """
    link = ControllerLink(settings)
    certificates = CertificateHolder()
    files = certificate_files(settings)
    if files is not None:
        files.load(certificates, required=settings.acme is None)
    if settings.acme is not None:
        if settings.workers > 1 and settings.cert_path is None:
            raise ConfigurationError("workers read the ordered certificate from a file: --workers needs --cert-path")
        link.cert_keeper = CertKeeper(settings.acme, settings.cluster, certificates, files, link.ask_about_certificate)
    before = predecessor()
    entrances = EntryPoints(before.http, before.https) if before is not None else _bind(settings)
    connection = _Connection(link)
    handover = Handover(successor_command, entrances, connection.leave) if successor_command else None
    tasks: list[asyncio.Task[None]] = []
    keeping: list[asyncio.Task[None]] = []
    service: ProxyService | None = None
    # Ended in the opposite order: a lease that is held is given back, and answers that are under way finish, while
    # there is a connection to the controller.
    async with AsyncExitStack() as stack:
        stack.push_async_callback(end_tasks, tasks)
        if settings.workers > 1:
            workers = link.hearer = Workers(settings, worker_command, entrances, link.say)
            tasks.append(asyncio.create_task(workers.run(), name="workers"))
            if files is not None:
                tasks.append(asyncio.create_task(files.watch(certificates), name="certificate files"))
            stack.push_async_callback(workers.stop)
            stack.callback(entrances.close)
        else:
            service = _service(settings, link)
            tasks += await stack.enter_async_context(serving(settings, service, entrances, certificates))
        stack.push_async_callback(end_tasks, keeping)
        _log_start(settings, entrances)
        if before is not None:
            await before.leaves()
        tasks.append(asyncio.create_task(connection.run(), name="controller connection"))
        if link.cert_keeper is not None:
            keeping.append(asyncio.create_task(link.cert_keeper.run(), name="certificate"))
        ends = [*tasks, *keeping]
        if handover is not None:
            tasks.append(asyncio.create_task(handover.run(), name="handover"))
            ends.append(tasks[-1])
        try:
            yield ProxyServer(entrances, service, ends, handover)
        finally:
            log.info("proxy stops", name=settings.name)


class _Connection:
    """The connection to the controller, until it is left to another process."""

    def __init__(self, link: ControllerLink) -> None:
        self._link = link
        self._leave = asyncio.Event()
        self._left = asyncio.Event()

    async def run(self) -> None:
        """Never returns; raises when the connector died."""
        parts = [asyncio.create_task(self._link.connector.run()), asyncio.create_task(self._until_to_leave())]
        try:
            await until_one_ends(parts)
        finally:
            await end_tasks(parts)
        self._left.set()
        await asyncio.Event().wait()

    async def _until_to_leave(self) -> None:
        await self._leave.wait()

    async def leave(self) -> None:
        """Close it, and never connect again."""
        self._leave.set()
        await self._left.wait()


def _service(settings: ProxySettings, link: ControllerLink) -> ProxyService:
    """That of the one process that serves."""

    async def ask(token: str) -> None:
        await link.say(MessageFromProxy(route_info_request=RouteInfoRequest(token)))

    async def keep_alive(backend_id: str) -> None:
        await link.say(MessageFromProxy(keep_alive=backend_id))

    service = link.hearer = ProxyService(settings, ask, keep_alive)
    return service


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


def _log_start(settings: ProxySettings, entrances: EntryPoints) -> None:
    log.info(
        "proxy listens",
        name=settings.name,
        cluster=settings.cluster,
        host=settings.host,
        port=entrances.http_port,
        https_port=entrances.https_port,
        workers=settings.workers,
    )
