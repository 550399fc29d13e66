"""One of several processes that serve the same ports. `workers` starts it, `plane.cli.proxy_worker` runs it.

A worker has no connection to a controller: its proxy responds to its requests (`worker_link`).
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from plane.protocol.proxy_messages import MessageFromProxy, RouteInfoRequest
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.listeners.entry_points import EntryPoints
from plane.proxy.listeners.serving import certificate_files, serving
from plane.proxy.processes.worker_link import ToWorker, WorkerLink
from plane.proxy.service import SERVICE, ProxyService
from plane.settings import ProxySettings
from plane.tracing.export import start_tracing

__all__ = ["ProxyConnection", "WorkerConfig", "receive_config", "run_worker", "send_config"]

# A proxy reports every second whether it is connected to a controller.
SILENCE_TIMEOUT_S = 15.0

log = structlog.get_logger("plane.proxy")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration of a worker.

    Attributes:
        settings: those of the proxy.
        http, https: file descriptors of bound sockets, inherited.
    """

    settings: ProxySettings
    http: tuple[int, ...]
    https: tuple[int, ...]


def send_config(pair: socket.socket, config: WorkerConfig) -> None:
    """Send the configuration: the first message to a worker."""
    text = pickle.dumps(config)
    pair.sendall(len(text).to_bytes(4) + text)


def receive_config(pair: socket.socket) -> WorkerConfig:
    """Receive what `send_config` sent."""
    size = int.from_bytes(pair.recv(4, socket.MSG_WAITALL))
    config = pickle.loads(pair.recv(size, socket.MSG_WAITALL))  # noqa: S301 - sent by the parent process, over a private pair
    assert isinstance(config, WorkerConfig)
    return config


async def run_worker(pair: socket.socket, config: WorkerConfig, stop: asyncio.Event) -> None:
    """Serve until ``stop``, or until the proxy is gone."""
    link: WorkerLink[ToWorker] = await WorkerLink.over(pair, ToWorker)

    async def request_routes(tokens: Sequence[str]) -> None:
        for token in tokens:
            link.send(MessageFromProxy(route_info_request=RouteInfoRequest(token)))
        await link.drain()

    async def keep_alive(backend_id: str) -> None:
        link.send(MessageFromProxy(keep_alive=backend_id))
        await link.drain()

    async with start_tracing(SERVICE, enabled=config.settings.traces) as tracer:
        service = ProxyService(config.settings, request_routes, keep_alive, tracer)
        await _serve(service, link, config, stop)


async def _serve(service: ProxyService, link: WorkerLink[ToWorker], config: WorkerConfig, stop: asyncio.Event) -> None:
    connection = ProxyConnection(service)

    async def receive() -> None:
        async for message in link.messages():
            connection.received()
            if message == "Connected" or message == "Disconnected":
                connection.change(connected=message == "Connected")
            else:
                assert not isinstance(message, str)
                service.receive(message)
        log.warning("proxy of this worker ended")

    certificates = CertificateHolder()
    files = certificate_files(config.settings)
    if files is not None:
        files.load(certificates, required=config.settings.acme is None)
    entry_points = EntryPoints(*([socket.socket(fileno=fd) for fd in fds] for fds in (config.http, config.https)))
    async with serving(config.settings, service, entry_points, certificates) as tasks:
        ends = [asyncio.create_task(receive()), asyncio.create_task(stop.wait()), *tasks]
        ends.append(asyncio.create_task(connection.watch()))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.wait(ends)
    link.close()


class ProxyConnection:
    """Whether the proxy of this worker is connected to a controller. A silent proxy counts as not connected."""

    def __init__(self, service: ProxyService, *, silence_timeout_s: float = SILENCE_TIMEOUT_S) -> None:
        self._service = service
        self._silence_timeout_s = silence_timeout_s
        self._clock = asyncio.get_running_loop().time
        self._received_at = self._clock()
        self._connected = False

    def received(self) -> None:
        """Note a sign of life of the proxy."""
        self._received_at = self._clock()

    def change(self, *, connected: bool) -> None:
        """Handle the proxy's report, which comes every second. Only a change has an effect."""
        if connected is self._connected:
            return
        self._connected = connected
        if connected:
            self._service.connected()
        else:
            self._service.disconnected()

    async def watch(self) -> None:
        """Watch for silence of the proxy, until cancelled: a stopped proxy does not report backends that end."""
        while True:
            await asyncio.sleep(self._silence_timeout_s / 3)
            if self._clock() - self._received_at > self._silence_timeout_s and self._connected:
                log.warning("proxy of this worker is silent; treated as disconnected from the controller")
                self.change(connected=False)
