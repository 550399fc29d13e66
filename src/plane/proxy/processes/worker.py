"""One of several processes that serve the same ports: `plane.cli.proxy_worker` runs it, `workers` starts it.

It knows no controller: its proxy answers its questions (`worker_link`).
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from dataclasses import dataclass

import structlog

from plane.protocol.proxy_messages import MessageFromProxy, RouteInfoRequest
from plane.proxy.certificates.tls import CertificateHolder
from plane.proxy.listeners.entry_points import EntryPoints
from plane.proxy.listeners.serving import certificate_files, serving
from plane.proxy.processes.worker_link import ToWorker, WorkerLink
from plane.proxy.service import ProxyService
from plane.settings import ProxySettings

__all__ = ["Order", "receive_order", "run_worker", "send_order"]

# A proxy says every second whether it is connected to a controller.
SILENCE_LIMIT_S = 15.0

log = structlog.get_logger("plane.proxy")


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do.

    Attributes:
        settings: those of the proxy.
        http, https: file descriptors of bound sockets, inherited.
    """

    settings: ProxySettings
    http: tuple[int, ...]
    https: tuple[int, ...]


def send_order(pair: socket.socket, order: Order) -> None:
    """The first thing that is said to a worker."""
    text = pickle.dumps(order)
    pair.sendall(len(text).to_bytes(4) + text)


def receive_order(pair: socket.socket) -> Order:
    """What `send_order` sent."""
    size = int.from_bytes(pair.recv(4, socket.MSG_WAITALL))
    order = pickle.loads(pair.recv(size, socket.MSG_WAITALL))  # noqa: S301 - of our own parent, over a private pair
    assert isinstance(order, Order)
    return order


async def run_worker(pair: socket.socket, order: Order, stop: asyncio.Event) -> None:
    """Serve until ``stop``, or until the proxy is gone."""
    link: WorkerLink[ToWorker] = await WorkerLink.over(pair, ToWorker)

    async def ask(token: str) -> None:
        link.say(MessageFromProxy(route_info_request=RouteInfoRequest(token)))
        await link.flushed()

    async def keep_alive(backend_id: str) -> None:
        link.say(MessageFromProxy(keep_alive=backend_id))
        await link.flushed()

    service = ProxyService(order.settings, ask, keep_alive)
    connection = _Connection(service)

    async def hear() -> None:
        async for message in link.heard():
            connection.heard()
            if message == "Connected" or message == "Disconnected":
                connection.change(connected=message == "Connected")
            else:
                assert not isinstance(message, str)
                service.hear(message)
        log.warning("the proxy of this worker is gone")

    certificates = CertificateHolder()
    files = certificate_files(order.settings)
    if files is not None:
        files.load(certificates, required=order.settings.acme is None)
    entrances = EntryPoints(*([socket.socket(fileno=fd) for fd in fds] for fds in (order.http, order.https)))
    async with serving(order.settings, service, entrances, certificates) as tasks:
        ends = [asyncio.create_task(hear()), asyncio.create_task(stop.wait()), *tasks]
        ends.append(asyncio.create_task(connection.watch()))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.wait(ends)
    link.close()


class _Connection:
    """Whether there is a controller, as far as the proxy of this worker says; silence means that there is none."""

    def __init__(self, service: ProxyService) -> None:
        self._service = service
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._connected = False

    def heard(self) -> None:
        self._heard_at = self._clock()

    def change(self, *, connected: bool) -> None:
        """It is said every second; act on what is new."""
        if connected is self._connected:
            return
        self._connected = connected
        if connected:
            self._service.connected()
        else:
            self._service.disconnected()

    async def watch(self) -> None:
        """A proxy that is stopped says nothing of what ends meanwhile; until cancelled."""
        while True:
            await asyncio.sleep(SILENCE_LIMIT_S / 3)
            if self._clock() - self._heard_at > SILENCE_LIMIT_S and self._connected:
                log.warning("the proxy of this worker is silent; it counts as without a controller")
                self.change(connected=False)
