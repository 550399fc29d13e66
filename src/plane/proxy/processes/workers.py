"""Several processes behind the same ports, which are one proxy to the controller (``--workers``).

This process holds the sockets of the ports, one per worker (SO_REUSEPORT: the kernel distributes connections), and the
connection to the controller. A worker that ends is replaced; connections wait in its socket in between.
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
from plane.decisions.routing.worker_coalescing import KEEPALIVE_INTERVAL_S, WorkerCoalescing
from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy, RouteInfoRequest, RouteInfoResponse
from plane.proxy.listeners.entry_points import EntryPoints
from plane.proxy.processes.worker import WorkerConfig, send_config
from plane.proxy.processes.worker_link import FromWorker, ToWorker, WorkerLink
from plane.settings import ProxySettings
from plane.tasks import run_together
from plane.timing import PROXY_SHUTDOWN_GRACE_S

__all__ = ["Workers"]

# Longer than the grace that a worker gives its connections.
STOP_TIMEOUT_S = PROXY_SHUTDOWN_GRACE_S + 5.0
# A worker that leaves this much unread is stuck, and one that leaves anything unread at so many checks, one a second.
# Checks are counted, since this process may be stopped, too. A worker takes a second or two to start.
UNREAD_LIMIT_BYTES = 16 * 1024 * 1024
UNREAD_LIMIT_CHECKS = 15

log = structlog.get_logger("plane.proxy")


class Workers:
    """The workers of one proxy.

    Args:
        command: starts a worker; the descriptor of its socket is appended as the last argument.
        send: sends a message to the controller; returns False without a connection.
    """

    def __init__(
        self,
        settings: ProxySettings,
        command: Sequence[str],
        entry_points: EntryPoints,
        send: Callable[[MessageFromProxy], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._command = command
        self._entry_points = entry_points
        self._send = send
        self._coalescing = WorkerCoalescing()
        self._links: dict[int, WorkerLink[FromWorker]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # At how many checks in a row a worker had not read everything.
        self._unread_checks: dict[int, int] = {}
        self._connected = False
        self._stopping = False
        self._clock = asyncio.get_running_loop().time

    # From the connection to the controller.

    def connected(self) -> None:
        """A connection was made: the workers repeat their requests and their keepalives."""
        self._connected = True
        self._send_to_all("Connected")

    def disconnected(self) -> None:
        """The connection ended."""
        self._connected = False
        self._coalescing.disconnected()
        self._send_to_all("Disconnected")

    def receive(self, message: MessageToProxy) -> None:
        """Forward a message to all workers, since connections of a token can come to any of them."""
        if isinstance(message.content, RouteInfoResponse):
            self._coalescing.resolved(message.content.token)
        self._send_to_all(message)

    def _send_to_all(self, message: ToWorker) -> None:
        for number, link in list(self._links.items()):
            link.send(message)
            if link.unread_bytes > UNREAD_LIMIT_BYTES:
                self._kill_stuck(number)

    def _check_workers(self) -> None:
        """Kill workers that are stopped or hang: the kernel continues to give them a share of the connections."""
        for number, link in self._links.items():
            self._unread_checks[number] = 0 if link.is_read else self._unread_checks.get(number, 0) + 1
            if self._unread_checks[number] >= UNREAD_LIMIT_CHECKS:
                self._kill_stuck(number)

    def _kill_stuck(self, number: int) -> None:
        log.error("worker is stuck; killing it", worker=number)
        self._processes[number].kill()

    # The processes.

    async def run(self) -> None:
        """Keep all workers running, until cancelled."""
        await run_together(*(self._supervise(number) for number in range(self._settings.workers)), self._keep_alive())

    async def _supervise(self, number: int) -> None:
        # A worker that cannot start is not restarted in a tight loop.
        backoff = ReconnectBackoff()
        while True:
            ours, theirs = socket.socketpair()
            with theirs:
                process = self._start(number, theirs)
            backoff.connected(self._clock())
            self._processes[number] = process
            # A worker that has ended by now is handled below.
            with suppress(ConnectionError):
                send_config(ours, self._config(number))
            ours.setblocking(False)
            link: WorkerLink[FromWorker] = await WorkerLink.over(ours, FromWorker)
            self._links[number] = link
            self._unread_checks[number] = 0
            if self._connected:
                link.send("Connected")
            log.info("worker started", worker=number, pid=process.pid)
            try:
                async for message in link.messages():
                    await self._receive(message)
            finally:
                del self._links[number]
                link.close()
            status = await asyncio.to_thread(process.wait)
            if self._stopping:
                await asyncio.Event().wait()
            wait_s = backoff.ended(self._clock())
            log.error("worker ended; starting another", worker=number, status=status, after_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    def _start(self, number: int, theirs: socket.socket) -> subprocess.Popen[bytes]:
        config = self._config(number)
        return subprocess.Popen(  # noqa: S603 - a program of this package
            [*self._command, str(theirs.fileno())], pass_fds=(theirs.fileno(), *config.http, *config.https)
        )

    def _config(self, number: int) -> WorkerConfig:
        count = self._settings.workers
        http, https = (
            tuple(bound.fileno() for bound in sockets[number::count])
            for sockets in (self._entry_points.http, self._entry_points.https)
        )
        port = self._settings.metrics_port
        settings = replace(self._settings, metrics_port=None if port is None else port + number)
        return WorkerConfig(settings, http, https)

    async def _receive(self, message: FromWorker) -> None:
        match message.content:
            case RouteInfoRequest(token):
                if self._coalescing.lookup(token, self._clock()):
                    await self._send(message)
            case str(backend_id):
                if self._coalescing.keep_alive(backend_id, self._clock()):
                    await self._send(message)
            case other:
                log.error("unexpected message type from proxy worker", type=type(other).__name__)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_INTERVAL_S)
            self._check_workers()
            self._send_to_all("Connected" if self._connected else "Disconnected")
            for backend_id in self._coalescing.poll(self._clock()):
                await self._send(MessageFromProxy(keep_alive=backend_id))

    async def stop(self) -> None:
        """Let all workers finish their requests, and end them. They still need the connection to the controller."""
        self._stopping = True
        for process in self._processes.values():
            process.terminate()
        ends = [asyncio.to_thread(process.wait, STOP_TIMEOUT_S) for process in self._processes.values()]
        for number, end in zip(self._processes, await asyncio.gather(*ends, return_exceptions=True), strict=True):
            if isinstance(end, BaseException):
                log.error("worker did not end in time; killing it", worker=number)
                self._processes[number].kill()
