"""A new process takes over the ports of a running one, and no connection is refused. SIGUSR2 asks for it.

The old process starts the new one with the same command line and lets it inherit the bound sockets: one and the same
queue of connections for both. When the new one listens, the old one leaves the controller to it (two nodes of one name
would drive each other out), accepts no more, and ends as after SIGTERM. A new one that does not get so far changes
nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence

import structlog

from plane.proxy.listeners.entry_points import EntryPoints

__all__ = ["Handover", "Predecessor", "predecessor"]

# For the new process to start and listen, and for the old one to leave the controller.
LIMIT_S = 30.0
VARIABLE = "PLANE_PROXY_TAKES_OVER"

log = structlog.get_logger("plane.proxy")


class Predecessor:
    """The process from which this one takes over.

    Attributes:
        http, https: its bound sockets.
    """

    def __init__(self, pair: socket.socket, http: list[socket.socket], https: list[socket.socket]) -> None:
        self._pair = pair
        self.http = http
        self.https = https

    async def leaves(self) -> None:
        """Say that this process listens, and wait until the other has left the controller."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIMIT_S):
                await loop.sock_sendall(self._pair, b"listens\n")
                await loop.sock_recv(self._pair, 1)
        except (OSError, TimeoutError):
            log.warning("the process before this one is gone")
        self._pair.close()


def predecessor() -> Predecessor | None:
    """The process that started this one to take over, if one did."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    given = json.loads(text)
    pair, *bound = (socket.socket(fileno=fd) for fd in (given["pair"], *given["http"], *given["https"]))
    pair.setblocking(False)
    count = len(given["http"])
    return Predecessor(pair, bound[:count], bound[count:])


class Handover:
    """Hands over when asked to.

    Args:
        command: starts the new process.
        entrances: whose sockets it gets.
        leave_controller: ends the connection to the controller, for good.
    """

    def __init__(
        self, command: Sequence[str], entrances: EntryPoints, leave_controller: Callable[[], Awaitable[None]]
    ) -> None:
        self._command = command
        self._entrances = entrances
        self._leave_controller = leave_controller
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Begin."""
        self._asked.set()

    async def run(self) -> None:
        """Return when a new process has taken over."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if await self._attempt():
                return

    async def _attempt(self) -> bool:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        with ours:
            with theirs:
                process = self._start(theirs)
            log.info("a new process starts, to take over", pid=process.pid)
            try:
                async with asyncio.timeout(LIMIT_S):
                    listens = await loop.sock_recv(ours, 100)
            except (OSError, TimeoutError):
                listens = b""
            if not listens:
                process.kill()
                status = await asyncio.to_thread(process.wait)
                log.error("the new process did not take over; this one goes on", pid=process.pid, status=status)
                return False
            await self._leave_controller()
            log.info("the new process has taken over", pid=process.pid)
            return True

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        http, https = ([bound.fileno() for bound in of] for of in (self._entrances.http, self._entrances.https))
        given = json.dumps({"pair": theirs.fileno(), "http": http, "https": https})
        return subprocess.Popen(  # noqa: S603 - the command line of this very process
            self._command,
            env={**os.environ, VARIABLE: given},
            pass_fds=(theirs.fileno(), *http, *https),
        )
