"""Starts and stops a proxy: its listening socket, its connection to a controller, and their end in order."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from plane import timing
from plane.ownership import end_tasks, until_one_ends
from plane.protocol.errors import ConfigurationError
from plane.protocol.proxy_messages import (
    BackendRemoved,
    MessageFromProxy,
    MessageToProxy,
    RouteInfoRequest,
    RouteInfoResponse,
)
from plane.proxy.limits import CLIENT_PROBE_AFTER_S, CLIENT_PROBE_INTERVAL_S, CLIENT_PROBES
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed

__all__ = ["RunningProxy", "running_proxy"]

ACCEPT_BACKLOG = 4096
# glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD: see `_keep_large_buffers`.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BUFFERS_BYTES = 64 * 1024 * 1024

ProxySocket = NodeSocket[MessageToProxy, MessageFromProxy]

log = structlog.get_logger("plane.proxy")


class RunningProxy:
    """A proxy that listens. ``port`` is the one it got."""

    def __init__(self, port: int, tasks: list[asyncio.Task[None]]) -> None:
        self.port = port
        self._tasks = tasks

    async def wait(self) -> None:
        """Never returns; raises when a part of the proxy died."""
        await until_one_ends(self._tasks)


class _Controller:
    """The proxy's side of its connection to a controller, present or not."""

    def __init__(self) -> None:
        self._socket: ProxySocket | None = None
        self.service: ProxyService

    async def ask(self, token: str) -> None:
        """Where does the token lead?"""
        await self._send(MessageFromProxy(route_info_request=RouteInfoRequest(token)))

    async def keep_alive(self, backend_id: str) -> None:
        """The backend is in use."""
        await self._send(MessageFromProxy(keep_alive=backend_id))

    async def _send(self, message: MessageFromProxy) -> None:
        if self._socket is None:
            return
        try:
            await self._socket.send(message)
        except SocketClosed as error:
            log.info("not sent; it is sent again on the next connection", error=str(error))

    async def session(self, socket: ProxySocket) -> None:
        """Serve one connection to its end."""
        service = self.service
        self._socket = socket
        service.ready = True
        try:
            service.keeper.connected()
            service.routes.connected()
            async for message in socket.messages():
                match message.content:
                    case RouteInfoResponse() as response:
                        service.routes.answered(response)
                    case BackendRemoved(backend):
                        service.routes.forget_backend(backend)
                        service.pool.remove_backend(backend)
        finally:
            self._socket = None
            service.ready = False
            service.routes.disconnected()


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
    )
    server = await _listen(settings, service)
    port: int = server.sockets[0].getsockname()[1]
    _keep_large_buffers()
    tasks = [
        asyncio.create_task(connector.run(), name="controller connection"),
        asyncio.create_task(service.keeper.run(), name="keepalive"),
        asyncio.create_task(service.routes.run(), name="questions"),
        asyncio.create_task(service.sweep(), name="deadlines"),
    ]
    log.info("proxy listens", name=settings.name, cluster=settings.cluster, host=settings.host, port=port)
    # What is there at the start stays; collecting it again and again costs time that requests wait.
    gc.freeze()
    try:
        yield RunningProxy(port, tasks)
    finally:
        log.info("proxy stops", name=settings.name)
        server.close()
        await service.drain(timing.PROXY_SHUTDOWN_GRACE_S)
        await end_tasks(tasks)


async def _listen(settings: ProxySettings, service: ProxyService) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            service.new_connection, settings.host, settings.http_port, backlog=ACCEPT_BACKLOG
        )
    except OSError as error:
        why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error}"
        raise ConfigurationError(
            f"port {settings.http_port} on {settings.host} {why}; choose another with --http-port"
        ) from error
    for listening in server.sockets:
        # Accepted connections inherit these.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, CLIENT_PROBE_AFTER_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, CLIENT_PROBE_INTERVAL_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, CLIENT_PROBES)
    return server


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
