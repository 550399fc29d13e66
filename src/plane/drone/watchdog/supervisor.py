"""Run a watchdog beside the drone, and send it the deadlines and the locations of all backends.

There is one watchdog at a time. One that ends or is silent is replaced by another, which is sent everything again. With
a state store the watchdog outlives the drone; the drone's next process first sends its own watchdog everything, then
ends the former one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import structlog

from plane import timing
from plane.drone.watchdog.messages import Hold, Message, Release, Tick, encode
from plane.protocol.errors import PlaneError
from plane.runtime.base import DeadlinesNotEnforced
from plane.runtime.kill_target import KillTarget
from plane.runtime.process.child_process import ChildProcess
from plane.runtime.process.procfs import signal_process, start_time
from plane.tasks import run_together

__all__ = ["WatchdogSupervisor"]

# The delay before the next attempt to start a watchdog; longer after each failure.
RESTART_FIRST_S = 0.1
RESTART_FACTOR = 2.0
RESTART_CAP_S = 5.0
# How long a renewal waits for others. One message wakes the watchdog, however many renewals it has.
LINGER_S = 0.5
STDERR = 2
READ_BYTES = 4096

log = structlog.get_logger("plane.drone")


class WatchdogSupervisor:
    """The drone's side of its watchdog; a `plane.runtime.base.DeadlineEnforcer`.

    Args:
        ends_with_drone: whether the watchdog kills all backends when this process ends.
        output_limit_bytes: how much of the disk a backend's output may take while this process does not read it.
        place: path of a symbolic link that names the watchdog of this drone's state store. None: no watchdog outlives
            this process.

    Attributes:
        start_count: how many watchdogs were started; more than one means that one failed.
    """

    def __init__(self, *, ends_with_drone: bool, output_limit_bytes: int, place: Path | None = None) -> None:
        self._arguments = ("1" if ends_with_drone else "0", str(output_limit_bytes))
        self._place = place
        self._enforced: dict[str, Hold] = {}
        # Backends whose latest message has not been sent to the current watchdog, in order.
        self._unsent: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._sent_ticks = 0
        self._confirmed_ticks = 0
        self._confirmed = asyncio.Condition()
        self.start_count = 0

    @property
    def responds(self) -> bool:
        """Whether the watchdog has confirmed all but the messages of this moment."""
        return 0 < self._sent_ticks <= self._confirmed_ticks + 1

    def enforce(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Set the deadlines of a backend, in nanoseconds of CLOCK_BOOTTIME.

        They are sent within `LINGER_S`, together with others: a renewal comes long before the deadline.
        """
        known = self._enforced.get(backend_id)
        self._enforced[backend_id] = Hold(backend_id, soft_ns, hard_ns, None if known is None else known.target)
        self._send_soon(backend_id)

    def locate(self, backend_id: str, target: KillTarget) -> None:
        """Send where a backend's processes are, or will be in a moment. Ignored for a backend without deadlines."""
        if known := self._enforced.get(backend_id):
            self._enforced[backend_id] = replace(known, target=target)
            self._unsent[backend_id] = None
            self._wake.set()

    def release(self, backend_id: str) -> None:
        """Stop enforcing the deadlines of a backend, which has ended. Sent within `LINGER_S`."""
        if self._enforced.pop(backend_id, None) is not None:
            self._send_soon(backend_id)

    def _send_soon(self, backend_id: str) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_later(LINGER_S, self._wake.set)
        self._unsent[backend_id] = None

    def hard_deadline_ns(self, backend_id: str) -> int | None:
        """Return the backend's hard deadline; None if no deadline is enforced."""
        known = self._enforced.get(backend_id)
        return None if known is None else known.hard_ns

    async def wait_confirmed(self, timeout_s: float = timing.WATCHDOG_CONFIRM_TIMEOUT_S) -> None:
        """Return once the watchdog has confirmed everything that was set before this call.

        Raises:
            DeadlinesNotEnforced: it did not within the timeout.
        """
        self._sent_ticks += 1
        wanted = self._sent_ticks
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s), self._confirmed:
                await self._confirmed.wait_for(lambda: self._confirmed_ticks >= wanted)
        except TimeoutError:
            raise DeadlinesNotEnforced("the watchdog does not respond; it is being replaced") from None

    async def run(self) -> None:
        """Run a watchdog until cancelled."""
        wait_s = RESTART_FIRST_S
        while True:
            try:
                await self._run_one()
                wait_s = RESTART_FIRST_S
            except OSError as error:
                log.error("watchdog not started; no backends are started without one", error=str(error))
                wait_s = min(wait_s * RESTART_FACTOR, RESTART_CAP_S)
            await asyncio.sleep(wait_s)

    async def _run_one(self) -> None:
        """Start a watchdog and feed it until it ends or is silent.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                command = [sys.executable, "-P", "-m", "plane.drone.watchdog.main", str(theirs.fileno())]
                watchdog = ChildProcess.start(
                    [*command, *self._arguments], env=os.environ, output=STDERR, inherited=(theirs.fileno(),), cwd="/"
                )
            self.start_count += 1
            try:
                self._unsent = dict.fromkeys(self._enforced)
                await run_together(
                    self._send(ours), self._receive(ours), self._check_alive(watchdog), _until_ended(watchdog)
                )
            except _Silent:
                log.error("watchdog does not respond; replacing it")
                await _kill(watchdog)
            except OSError as error:
                log.error("connection to watchdog broken; replacing it", error=str(error))
                await _kill(watchdog)
            except asyncio.CancelledError:
                # This process ends. The watchdog should not search for backends that have just ended.
                with contextlib.suppress(OSError):
                    ours.send(b"".join(map(encode, self._take_unsent())))
                raise
            else:
                log.error("watchdog ended; starting another")
            finally:
                watchdog.detach()

    async def _send(self, connection: socket.socket) -> None:
        loop, last_tick = asyncio.get_running_loop(), 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            messages = self._take_unsent()
            if self._sent_ticks > last_tick:
                last_tick = self._sent_ticks
                messages.append(Tick(last_tick))
            await loop.sock_sendall(connection, b"".join(map(encode, messages)))

    def _take_unsent(self) -> list[Message]:
        unsent, self._unsent = self._unsent, {}
        return [self._enforced.get(backend_id) or Release(backend_id) for backend_id in unsent]

    async def _receive(self, connection: socket.socket) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        while data := await loop.sock_recv(connection, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                async with self._confirmed:
                    self._confirmed_ticks = max(self._confirmed_ticks, int(line))
                    self._confirmed.notify_all()

    async def _check_alive(self, watchdog: ChildProcess) -> None:
        """Wait for the watchdog's first response, end the former process's watchdog, then check periodically.

        Raises:
            _Silent: the watchdog does not respond in time.
        """
        await self._check_response(timing.WATCHDOG_START_TIMEOUT_S)
        if self._place is not None:
            self._take_place(self._place, watchdog)
        while True:
            await asyncio.sleep(timing.WATCHDOG_TICK_INTERVAL_S)
            await self._check_response(timing.WATCHDOG_TIMEOUT_S)

    async def _check_response(self, timeout_s: float) -> None:
        try:
            await self.wait_confirmed(timeout_s)
        except DeadlinesNotEnforced:
            # This process itself may have been stopped. Then the response is waiting and is read now.
            try:
                await self.wait_confirmed(timing.WATCHDOG_TICK_INTERVAL_S)
            except DeadlinesNotEnforced:
                raise _Silent from None

    @staticmethod
    def _take_place(place: Path, watchdog: ChildProcess) -> None:
        """End the watchdog that ``place`` names, and let ``place`` name this one.

        ``place`` is a symbolic link whose target is a process id and start time. A link is created and read atomically,
        and needs no space on a full disk.
        """
        try:
            _kill_watchdog_at(place)
            place.unlink(missing_ok=True)
            place.symlink_to(f"{watchdog.pid}:{watchdog.started_at}")
        except OSError as error:
            log.warning("watchdog not recorded beside the state store; the next drone cannot end it", error=str(error))


class _Silent(PlaneError):
    """The watchdog does not respond."""


async def _kill(watchdog: ChildProcess) -> None:
    """Kill a watchdog. One that hangs in the kernel is not awaited; it ends as soon as the kernel call returns."""
    watchdog.send_signal(signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timing.WATCHDOG_CONFIRM_TIMEOUT_S):
            await watchdog.wait()


async def _until_ended(watchdog: ChildProcess) -> None:
    await watchdog.wait()


def _kill_watchdog_at(place: Path) -> None:
    """SIGKILL the watchdog that ``place`` names. A stopped one would later kill backends by outdated deadlines."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, _, started_at = str(place.readlink()).partition(":")
        # The start time first: another process with this id can make a reader of its command line wait for ever.
        if start_time(int(pid)) != int(started_at):
            return
        command = Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")
        if b"plane.drone.watchdog.main" in command:
            signal_process(int(pid), int(started_at), signal.SIGKILL)
