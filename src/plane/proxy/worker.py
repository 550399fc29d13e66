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
from plane.proxy.entrances import Entrances
from plane.proxy.service import ProxyService
from plane.proxy.serving import certificate_files, serving
from plane.proxy.tls import CertificateHolder
from plane.proxy.worker_link import ToWorker, WorkerLink
from plane.settings import ProxySettings

__all__ = ["Order", "receive_order", "run_worker", "send_order"]

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

    async def hear() -> None:
        async for message in link.heard():
            if message == "Connected":
                service.connected()
            elif message == "Disconnected":
                service.disconnected()
            else:
                assert not isinstance(message, str)
                service.hear(message)
        log.warning("the proxy of this worker is gone")

    certificates = CertificateHolder()
    files = certificate_files(order.settings)
    if files is not None:
        files.load(certificates, required=order.settings.acme is None)
    entrances = Entrances(*([socket.socket(fileno=fd) for fd in fds] for fds in (order.http, order.https)))
    async with serving(order.settings, service, entrances, certificates) as tasks:
        ends = [asyncio.create_task(hear()), asyncio.create_task(stop.wait()), *tasks]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.wait(ends)
    link.close()
