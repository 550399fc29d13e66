"""Several processes behind the same ports, one proxy to its controller. `running` uses it for ``--workers``.

This process holds the ports' sockets, one per worker (SO_REUSEPORT: the kernel spreads connections), and the connection
to the controller. A worker that dies is replaced; what came to its socket meanwhile waits there.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from plane.decisions.retry import ReconnectBackoff
from plane.decisions.routing.worker_coalescing import KEEPALIVE_INTERVAL_S, WorkerMerge
from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy, RouteInfoRequest, RouteInfoResponse
from plane.proxy.listeners.entry_points import Entrances
from plane.proxy.processes.worker import Order, send_order
from plane.proxy.processes.worker_link import FromWorker, ToWorker, WorkerLink
from plane.settings import ProxySettings
from plane.tasks import run_together
from plane.timing import PROXY_SHUTDOWN_GRACE_S

__all__ = ["Workers"]

# Beyond the grace that a worker gives its connections.
STOP_LIMIT_S = PROXY_SHUTDOWN_GRACE_S + 5.0
# A worker that leaves so much unread is stuck.
UNREAD_LIMIT_BYTES = 16 * 1024 * 1024

log = structlog.get_logger("plane.proxy")


class Workers:
    """The workers of one proxy.

    Args:
        command: starts one; it gets the number of its socket's descriptor as its last argument.
        say: tells the controller; False without a connection.
    """

    def __init__(
        self,
        settings: ProxySettings,
        command: Sequence[str],
        entrances: Entrances,
        say: Callable[[MessageFromProxy], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._command = command
        self._entrances = entrances
        self._say = say
        self._merge = WorkerMerge()
        self._links: dict[int, WorkerLink[FromWorker]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._connected = False
        self._stopping = False
        self._clock = asyncio.get_running_loop().time

    # From the connection to the controller.

    def connected(self) -> None:
        """There is a new connection: the workers ask again, and tell what is in use."""
        self._connected = True
        self._tell_all("Connected")

    def disconnected(self) -> None:
        """There is none."""
        self._connected = False
        self._merge.disconnected()
        self._tell_all("Disconnected")

    def hear(self, message: MessageToProxy) -> None:
        """An answer, or news: for all, since a token's connections may come to any of them."""
        if isinstance(message.content, RouteInfoResponse):
            self._merge.answered(message.content.token)
        self._tell_all(message)

    def _tell_all(self, message: ToWorker) -> None:
        for number, link in list(self._links.items()):
            link.say(message)
            if link.unread_bytes > UNREAD_LIMIT_BYTES:
                log.error("worker is stuck and is ended", worker=number)
                self._processes[number].kill()

    # The processes.

    async def run(self) -> None:
        """Keep all of them running; until cancelled."""
        await run_together(*(self._keep_one(number) for number in range(self._settings.workers)), self._keep_alive())

    async def _keep_one(self, number: int) -> None:
        # One that cannot start would else be started all the time.
        backoff = ReconnectBackoff()
        while True:
            ours, theirs = socket.socketpair()
            with theirs:
                process = self._start(number, theirs)
            backoff.connected(self._clock())
            self._processes[number] = process
            # A worker that has ended by now is noticed below.
            with suppress(ConnectionError):
                send_order(ours, self._order(number))
            ours.setblocking(False)
            link: WorkerLink[FromWorker] = await WorkerLink.over(ours, FromWorker)
            self._links[number] = link
            if self._connected:
                link.say("Connected")
            log.info("worker started", worker=number, pid=process.pid)
            try:
                async for message in link.heard():
                    await self._hear_worker(message)
            finally:
                del self._links[number]
                link.close()
            status = await asyncio.to_thread(process.wait)
            if self._stopping:
                await asyncio.Event().wait()
            wait_s = backoff.ended(self._clock())
            log.error("worker ended; another is started", worker=number, status=status, after_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _start(self, number: int, theirs: socket.socket) -> subprocess.Popen[bytes]:
        order = self._order(number)
        return subprocess.Popen(  # noqa: S603 - a program of ours
            [*self._command, str(theirs.fileno())], pass_fds=(theirs.fileno(), *order.http, *order.https)
        )

    def _order(self, number: int) -> Order:
        count = self._settings.workers
        http, https = (
            tuple(bound.fileno() for bound in sockets[number::count])
            for sockets in (self._entrances.http, self._entrances.https)
        )
        port = self._settings.metrics_port
        settings = replace(self._settings, metrics_port=None if port is None else port + number)
        return Order(settings, http, https)

    async def _hear_worker(self, message: FromWorker) -> None:
        match message.content:
            case RouteInfoRequest(token):
                if self._merge.question(token, self._clock()):
                    await self._say(message)
            case str(backend_id):
                if self._merge.keep_alive(backend_id, self._clock()):
                    await self._say(message)
            case other:
                log.error("worker said what is not its matter", said=type(other).__name__)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_INTERVAL_S)
            self._tell_all("Connected" if self._connected else "Disconnected")
            for backend_id in self._merge.look(self._clock()):
                await self._say(MessageFromProxy(keep_alive=backend_id))

    async def stop(self) -> None:
        """Have all finish what they serve, and end them; the connection to the controller is still needed meanwhile."""
        self._stopping = True
        for process in self._processes.values():
            process.terminate()
        ends = [asyncio.to_thread(process.wait, STOP_LIMIT_S) for process in self._processes.values()]
        for number, end in zip(self._processes, await asyncio.gather(*ends, return_exceptions=True), strict=True):
            if isinstance(end, BaseException):
                log.error("worker did not end in time and is killed", worker=number)
                self._processes[number].kill()
