"""A new process takes over the ports of a running one without refusing a connection. SIGUSR2 requests it.

The old process starts the new one with the same command line, and the new one inherits the bound sockets with their
queues of connections. When it listens, the old process disconnects from the controller (of two nodes with one name,
each would replace the other), accepts no more, and ends as after SIGTERM. If the new process fails before that, the old
one continues.
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

__all__ = ["HotRestart", "Predecessor", "predecessor"]

# For the new process to listen, and for the old one to disconnect from the controller.
TIMEOUT_S = 30.0
VARIABLE = "PLANE_PROXY_TAKES_OVER"

log = structlog.get_logger("plane.proxy")


class Predecessor:
    """The process that this one takes over from.

    Attributes:
        http, https: its bound sockets.
    """

    def __init__(self, pair: socket.socket, http: list[socket.socket], https: list[socket.socket]) -> None:
        self._pair = pair
        self.http = http
        self.https = https

    async def leave_controller(self) -> None:
        """Report that this process listens, and wait until the other has disconnected from the controller."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await loop.sock_sendall(self._pair, b"listens\n")
                await loop.sock_recv(self._pair, 1)
        except (OSError, TimeoutError):
            log.warning("former process ended before the takeover was complete")
        self._pair.close()


def predecessor() -> Predecessor | None:
    """Return the process that started this one to take over, or None."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    given = json.loads(text)
    pair, *bound = (socket.socket(fileno=fd) for fd in (given["pair"], *given["http"], *given["https"]))
    pair.setblocking(False)
    count = len(given["http"])
    return Predecessor(pair, bound[:count], bound[count:])


class HotRestart:
    """Starts a new process on request, and lets it take over.

    Args:
        command: starts the new process.
        entry_points: the ports whose sockets it inherits.
        leave_controller: ends the connection to the controller permanently.
    """

    def __init__(
        self, command: Sequence[str], entry_points: EntryPoints, leave_controller: Callable[[], Awaitable[None]]
    ) -> None:
        self._command = command
        self._entry_points = entry_points
        self._leave_controller = leave_controller
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Request a takeover."""
        self._requested.set()

    async def run(self) -> None:
        """Return when a new process has taken over."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            if await self._attempt():
                return

    async def _attempt(self) -> bool:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        with ours:
            with theirs:
                process = self._start(theirs)
            log.info("new process started to take over", pid=process.pid)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    listens = await loop.sock_recv(ours, 100)
            except (OSError, TimeoutError):
                listens = b""
            if not listens:
                process.kill()
                status = await asyncio.to_thread(process.wait)
                log.error("new process did not take over; this one continues", pid=process.pid, status=status)
                return False
            await self._leave_controller()
            log.info("new process has taken over", pid=process.pid)
            return True

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        http, https = ([bound.fileno() for bound in of] for of in (self._entry_points.http, self._entry_points.https))
        given = json.dumps({"pair": theirs.fileno(), "http": http, "https": https})
        return subprocess.Popen(  # noqa: S603 - the command line of this process
            self._command,
            env={**os.environ, VARIABLE: given},
            pass_fds=(theirs.fileno(), *http, *https),
        )
