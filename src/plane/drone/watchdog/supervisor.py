"""Keeps a watchdog beside the drone and sends it what it enforces: leases, and where each backend's processes are.

One watchdog at a time: one that dies or is silent is replaced by another, which is sent everything again. With a state
store the watchdog outlives the drone; the drone's next process sends its own everything before it ends that one.
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

# Before one that did not start is started again; longer each time.
RESTART_FIRST_S = 0.1
RESTART_FACTOR = 2.0
RESTART_CAP_S = 5.0
# How long a renewal waits for others. One message wakes the watchdog, however many renewals are in it.
LINGER_S = 0.5
STDERR = 2
READ_BYTES = 4096

log = structlog.get_logger("plane.drone")


class WatchdogSupervisor:
    """The drone's side of its watchdog.

    Args:
        ends_with_drone: the watchdog kills all backends when this process ends.
        output_limit_bytes: what a backend's output may take of the disk while this process does not read it.
        place: a path that names the watchdog of this drone's state store. None: no watchdog outlives this process.
    """

    def __init__(self, *, ends_with_drone: bool, output_limit_bytes: int, place: Path | None = None) -> None:
        self._arguments = ("1" if ends_with_drone else "0", str(output_limit_bytes))
        self._place = place
        self._held: dict[str, Hold] = {}
        # Backends whose message has not been sent to the watchdog that runs now, in order.
        self._unsent: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._sent_ticks = 0
        self._answered_ticks = 0
        self._answered = asyncio.Condition()

    def hold(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Have a backend's deadlines enforced, in nanoseconds of CLOCK_BOOTTIME.

        Sent in a moment, with others: a renewal comes long before the deadline.
        """
        held = self._held.get(backend_id)
        self._held[backend_id] = Hold(backend_id, soft_ns, hard_ns, None if held is None else held.target)
        self._send_soon(backend_id)

    def locate(self, backend_id: str, target: KillTarget) -> None:
        """Note where a backend's processes are, or will be in a moment. One that is not held is not enforced."""
        if held := self._held.get(backend_id):
            self._held[backend_id] = replace(held, target=target)
            self._unsent[backend_id] = None
            self._wake.set()

    def release(self, backend_id: str) -> None:
        """A backend has ended. Sent in a moment, with others."""
        if self._held.pop(backend_id, None) is not None:
            self._send_soon(backend_id)

    def _send_soon(self, backend_id: str) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_later(LINGER_S, self._wake.set)
        self._unsent[backend_id] = None

    def hard_deadline_ns(self, backend_id: str) -> int | None:
        """Return the backend's hard deadline; None: it is not held."""
        held = self._held.get(backend_id)
        return None if held is None else held.hard_ns

    async def confirmed(self, timeout_s: float = timing.WATCHDOG_CONFIRM_TIMEOUT_S) -> None:
        """Return once the watchdog has confirmed all that it was to be sent until now.

        Raises:
            DeadlinesNotEnforced: it did not within the timeout.
        """
        self._sent_ticks += 1
        wanted = self._sent_ticks
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s), self._answered:
                await self._answered.wait_for(lambda: self._answered_ticks >= wanted)
        except TimeoutError:
            raise DeadlinesNotEnforced("the watchdog does not answer; another one is started") from None

    async def run(self) -> None:
        """Have a watchdog until cancelled."""
        wait_s = RESTART_FIRST_S
        while True:
            try:
                await self._run_one()
                wait_s = RESTART_FIRST_S
            except OSError as error:
                log.error("watchdog not started; this drone starts nothing until one runs", error=str(error))
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
            try:
                self._unsent = dict.fromkeys(self._held)
                await run_together(self._send(ours), self._receive(ours), self._tick(watchdog), _until_ended(watchdog))
            except _Silent:
                log.error("watchdog does not answer; it is replaced")
                await _end(watchdog)
            except OSError as error:
                log.error("watchdog cannot be reached; it is replaced", error=str(error))
                await _end(watchdog)
            except asyncio.CancelledError:
                # This process ends. What has ended just now is not to be looked for by the watchdog.
                with contextlib.suppress(OSError):
                    ours.send(b"".join(map(encode, self._take_unsent())))
                raise
            else:
                log.error("watchdog ended; another is started")
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
        return [self._held.get(backend_id) or Release(backend_id) for backend_id in unsent]

    async def _receive(self, connection: socket.socket) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        while data := await loop.sock_recv(connection, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                async with self._answered:
                    self._answered_ticks = max(self._answered_ticks, int(line))
                    self._answered.notify_all()

    async def _tick(self, watchdog: ChildProcess) -> None:
        """See that the watchdog answers; then end the one that a former process of this drone has left."""
        await self._see_answer(timing.WATCHDOG_START_TIMEOUT_S)
        if self._place is not None:
            self._take_place(self._place, watchdog)
        while True:
            await asyncio.sleep(timing.WATCHDOG_TICK_INTERVAL_S)
            await self._see_answer(timing.WATCHDOG_TIMEOUT_S)

    async def _see_answer(self, timeout_s: float) -> None:
        try:
            await self.confirmed(timeout_s)
        except DeadlinesNotEnforced:
            # This process may have been stopped itself: then the answer is there, and is read now.
            try:
                await self.confirmed(timing.WATCHDOG_TICK_INTERVAL_S)
            except DeadlinesNotEnforced:
                raise _Silent from None

    @staticmethod
    def _take_place(place: Path, watchdog: ChildProcess) -> None:
        """End the watchdog that is named by ``place``, and have it name this one.

        It is a symbolic link whose target is a process id and start time: made and read at once, also on a full disk.
        """
        try:
            _end_watchdog_at(place)
            place.unlink(missing_ok=True)
            place.symlink_to(f"{watchdog.pid}:{watchdog.started_at}")
        except OSError as error:
            log.warning("the watchdog's place cannot be noted; the next drone cannot end it", error=str(error))


class _Silent(PlaneError):
    """The watchdog does not answer."""


async def _end(watchdog: ChildProcess) -> None:
    """Kill a watchdog. One that hangs in the kernel is left; it is killed as soon as it returns from there."""
    watchdog.send_signal(signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timing.WATCHDOG_CONFIRM_TIMEOUT_S):
            await watchdog.wait()


async def _until_ended(watchdog: ChildProcess) -> None:
    await watchdog.wait()


def _end_watchdog_at(place: Path) -> None:
    """SIGKILL for the watchdog at ``place``, if it is one: it may be stopped, and would kill by old deadlines later."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, _, started_at = str(place.readlink()).partition(":")
        command = Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")
        if b"plane.drone.watchdog.main" in command and start_time(int(pid)) == int(started_at):
            signal_process(int(pid), int(started_at), signal.SIGKILL)
