"""Starts and stops a DNS server: its sockets and its connection to a controller."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from plane.dns.challenge_values import ChallengeValues
from plane.dns.listeners import QueryHandler, TcpConnection, UdpEndpoint
from plane.dns.zone import Zone
from plane.protocol.dns_messages import MessageFromDns, MessageToDns, TxtRecordRequest
from plane.protocol.errors import ConfigurationError
from plane.settings import DnsSettings
from plane.tasks import end_tasks, until_one_ends
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed
from plane.transport.port_errors import port_error

__all__ = ["DnsServer", "start_dns"]

# A burst of five thousand queries, with what the kernel adds to each.
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024

DnsSocket = NodeSocket[MessageToDns, MessageFromDns]

log = structlog.get_logger("plane.dns")


class DnsServer:
    """A DNS server that listens on ``port``, UDP and TCP."""

    def __init__(self, port: int, tasks: list[asyncio.Task[None]]) -> None:
        self.port = port
        self._tasks = tasks

    async def wait(self) -> None:
        """Never return. Raise what ended a part of the server."""
        await until_one_ends(self._tasks)


class _Controller:
    """The server's side of its connection to a controller, present or not."""

    def __init__(self) -> None:
        self._socket: DnsSocket | None = None
        self.values = ChallengeValues(self._request)

    async def _request(self, cluster: str) -> None:
        if self._socket is None:
            raise ConnectionError("not connected to a controller")
        try:
            await self._socket.send(MessageFromDns(txt_record_request=TxtRecordRequest(cluster)))
        except SocketClosed as error:
            raise ConnectionError(str(error)) from error

    @property
    def is_connected(self) -> bool:
        """Whether a controller is connected."""
        return self._socket is not None

    async def session(self, socket: DnsSocket) -> None:
        """Receive the responses of one connection until it ends."""
        self._socket = socket
        try:
            async for message in socket.messages():
                self.values.receive(message.content)
        finally:
            self._socket = None


@asynccontextmanager
async def start_dns(settings: DnsSettings) -> AsyncIterator[DnsServer]:
    """Run a DNS server while the block runs.

    Raises:
        ConfigurationError: the zone is not a domain name, or the port cannot be used.
    """
    try:
        zone = Zone(settings.zone)
    except ValueError as error:
        raise ConfigurationError(f"--zone: {settings.zone!r} is not a domain name: {error}") from None
    controller = _Controller()
    connector: NodeConnector[MessageToDns, MessageFromDns] = NodeConnector(
        settings.controller_url, "/ctrl/dns-socket", settings.name, MessageToDns, controller.session
    )
    handler = QueryHandler(zone, controller.values)
    async with AsyncExitStack() as stack:
        port = settings.port
        for host in settings.hosts:
            port = await _listen(host, port, handler, stack)
        tasks = [asyncio.create_task(connector.run(), name="controller connection")]
        if settings.metrics_port is not None:
            # Imported here, so that a server without metrics starts sooner.
            from plane.dns.metrics import serve_metrics

            metrics = serve_metrics(lambda: controller.is_connected, settings.metrics_host, settings.metrics_port)
            tasks.append(asyncio.create_task(metrics, name="metrics"))
        log.info("DNS server listens", name=settings.name, zone=settings.zone, hosts=list(settings.hosts), port=port)
        try:
            yield DnsServer(port, tasks)
        finally:
            log.info("DNS server stops", name=settings.name)
            await handler.close()
            await end_tasks(tasks)


async def _listen(host: str, port: int, handler: QueryHandler, stack: AsyncExitStack) -> int:
    """Listen on UDP and TCP. Return the port, which differs from the given one only if that is 0.

    Raises:
        ConfigurationError
    """
    loop = asyncio.get_running_loop()
    try:
        # IPv4 and IPv6 have separate sockets, so that each response leaves from the address that was queried.
        tcp = stack.enter_context(_bound(socket.SOCK_STREAM, host, port))
        port = tcp.getsockname()[1]
        udp = stack.enter_context(_bound(socket.SOCK_DGRAM, host, port))
    except OSError as error:
        raise port_error(error, host, port, "--port") from error
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    transport, _ = await loop.create_datagram_endpoint(lambda: UdpEndpoint(handler), sock=udp)
    stack.callback(transport.close)
    server = await loop.create_server(lambda: TcpConnection(handler), sock=tcp)
    stack.callback(server.close)
    return port


def _bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
