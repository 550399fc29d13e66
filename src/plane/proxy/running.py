"""Starts and stops a proxy: its listening socket, its connection to a controller, and their end in order."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from plane import timing
from plane.ownership import end_tasks, run_together, until_one_ends
from plane.protocol.errors import ConfigurationError
from plane.protocol.handshake import Extension
from plane.protocol.proxy_messages import (
    BackendRemoved,
    CertManagerRequest,
    CertManagerResponse,
    MessageFromProxy,
    MessageToProxy,
    RouteInfoRequest,
    RouteInfoResponse,
    TokensRevoked,
)
from plane.proxy.cert_keeper import CertKeeper
from plane.proxy.certificate_files import CertificateFiles
from plane.proxy.entrances import Entrances, bind
from plane.proxy.service import ProxyService
from plane.proxy.tls import CertificateHolder
from plane.settings import ProxySettings
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed

__all__ = ["RunningProxy", "running_proxy"]

# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: see `_keep_large_buffers`.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BUFFERS_BYTES = 64 * 1024 * 1024

# What `/ready` says is missing.
_NO_CONTROLLER = "not connected to a controller"
_NO_CERTIFICATE = "no certificate yet"

ProxySocket = NodeSocket[MessageToProxy, MessageFromProxy]

log = structlog.get_logger("plane.proxy")


class RunningProxy:
    """A proxy that listens.

    Attributes:
        port: of plain HTTP; the one it got.
        https_port: of TLS; None without it.
        service: what its connections share.
    """

    def __init__(self, entrances: Entrances, service: ProxyService, tasks: list[asyncio.Task[None]]) -> None:
        self.service = service
        self.port = entrances.http_port
        self.https_port = entrances.https_port
        self._tasks = tasks

    async def wait(self) -> None:
        """Never returns; raises when a part of the proxy died."""
        await until_one_ends(self._tasks)


class _Controller:
    """The proxy's side of its connection to a controller, present or not."""

    def __init__(self) -> None:
        self._socket: ProxySocket | None = None
        self.service: ProxyService
        self.cert_keeper: CertKeeper | None = None

    async def ask(self, token: str) -> None:
        """Where does the token lead?"""
        await self._send(MessageFromProxy(route_info_request=RouteInfoRequest(token)))

    async def keep_alive(self, backend_id: str) -> None:
        """The backend is in use."""
        await self._send(MessageFromProxy(keep_alive=backend_id))

    async def ask_about_certificate(self, request: CertManagerRequest) -> bool:
        """Ask for the lease, set a challenge's value, or give the lease back. False: it could not be sent."""
        return await self._send(MessageFromProxy(cert_manager_request=request))

    async def _send(self, message: MessageFromProxy) -> bool:
        if self._socket is None:
            return False
        try:
            await self._socket.send(message)
        except SocketClosed as error:
            log.info("not sent; it is sent again on the next connection", error=str(error))
            return False
        return True

    async def session(self, socket: ProxySocket) -> None:
        """Serve one connection to its end."""
        service = self.service
        self._socket = socket
        service.missing.discard(_NO_CONTROLLER)
        try:
            service.keeper.connected()
            service.routes.connected()
            if self.cert_keeper is not None:
                self.cert_keeper.connected()
            async for message in socket.messages():
                match message.content:
                    case RouteInfoResponse() as response:
                        service.routes.answered(response)
                    case CertManagerResponse() as answer:
                        if self.cert_keeper is not None:
                            self.cert_keeper.answered(answer)
                    case BackendRemoved(backend):
                        service.remove_backend(backend)
                    case TokensRevoked(_, tokens):
                        service.revoke(tokens)
        finally:
            self._socket = None
            service.missing.add(_NO_CONTROLLER)
            service.routes.disconnected()
            if self.cert_keeper is not None:
                self.cert_keeper.disconnected()


@asynccontextmanager
async def running_proxy(settings: ProxySettings) -> AsyncIterator[RunningProxy]:
    """A proxy that listens while the block runs.

    Raises:
        ConfigurationError: the port cannot be used; says why.
    """
    controller = _Controller()
    service = controller.service = ProxyService(settings, controller.ask, controller.keep_alive)
    connector: NodeConnector[MessageToProxy, MessageFromProxy] = NodeConnector(
        settings.controller_url,
        f"/ctrl/c/{settings.cluster}/proxy-socket",
        settings.name,
        MessageToProxy,
        controller.session,
        (Extension.REVOCATION,),
    )
    certificates = CertificateHolder()
    files = _certificate_files(settings)
    if files is not None:
        files.load(certificates, required=settings.acme is None)
    if settings.acme is not None:
        controller.cert_keeper = CertKeeper(
            settings.acme, settings.cluster, certificates, files, controller.ask_about_certificate
        )
    entrances = _bind(settings)
    _keep_large_buffers()
    tasks = [
        asyncio.create_task(connector.run(), name="controller connection"),
        asyncio.create_task(service.keeper.run(), name="keepalive"),
        asyncio.create_task(service.routes.run(), name="questions"),
        asyncio.create_task(service.sweep(), name="deadlines"),
    ]
    if settings.https_port is not None:
        service.missing.add(_NO_CERTIFICATE)
        tasks.append(asyncio.create_task(_serve_tls(entrances, service, certificates, files), name="TLS"))
    keeping = []
    if controller.cert_keeper is not None:
        keeping = [asyncio.create_task(controller.cert_keeper.run(), name="certificate")]
    await entrances.open_http(service)
    log.info(
        "proxy listens",
        name=settings.name,
        cluster=settings.cluster,
        host=settings.host,
        port=entrances.http_port,
        https_port=entrances.https_port,
    )
    # What is there at the start stays; collecting it again and again costs time that requests wait.
    gc.freeze()
    try:
        yield RunningProxy(entrances, service, [*tasks, *keeping])
    finally:
        log.info("proxy stops", name=settings.name)
        entrances.close()
        # While there is a connection: a lease that is held is given back.
        await end_tasks(keeping)
        await service.drain(timing.PROXY_SHUTDOWN_GRACE_S)
        await end_tasks(tasks)


def _certificate_files(settings: ProxySettings) -> CertificateFiles | None:
    if settings.https_port is None:
        return None
    if settings.cert_path is None and settings.tls_pair is None:
        # Ordered, and kept in memory only.
        return None
    return CertificateFiles(json=settings.cert_path, pair=settings.tls_pair)


def _bind(settings: ProxySettings) -> Entrances:
    http = bind(settings.host, settings.http_port, "--http-port")
    if settings.https_port is None:
        return Entrances(http)
    try:
        return Entrances(http, bind(settings.host, settings.https_port, "--https-port"))
    except ConfigurationError:
        for bound in http:
            bound.close()
        raise


async def _serve_tls(
    entrances: Entrances, service: ProxyService, certificates: CertificateHolder, files: CertificateFiles | None
) -> None:
    """Open the TLS port when there is a certificate, and notice when its files change; until cancelled."""

    async def open_port() -> None:
        await entrances.open_https(service, certificates)
        service.missing.discard(_NO_CERTIFICATE)
        await asyncio.Event().wait()

    parts = [open_port()]
    if files is not None:
        parts.append(files.watch(certificates))
    await run_together(*parts)


def _keep_large_buffers() -> None:
    """Have malloc keep the memory of large reads instead of giving it back to the kernel each time.

    Bodies of 1 MiB go through half again as fast (docs/performance.md). No-op without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFERS_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_BUFFERS_BYTES)
