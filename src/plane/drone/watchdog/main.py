"""The watchdog's program: ``python -m plane.drone.watchdog.main DESCRIPTOR ENDS_WITH_DRONE OUTPUT_LIMIT_BYTES``.

The drone sends it the deadlines of its backends over a socket pair (`messages`). It kills each backend whose hard
deadline passed 3 s ago, whether its drone is dead, stopped, stuck in a system call or slow; while the drone is dead or
silent it also asks backends to stop at their soft deadlines. What is due is decided in
`plane.decisions.backends.deadline_enforcement`. It ends when its drone is gone and nothing is left to kill.

Nothing here may wait for anything but the next message: no disk, no lock, no engine. What could wait (log lines,
bounding the output of backends while their drone does not) is done by threads of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from plane.decisions.backends.deadline_enforcement import DRONE_SILENT_AFTER_NS, DeadlineTable, DroneStatus, Step
from plane.drone.watchdog.killer import Killer
from plane.drone.watchdog.messages import Hold, Release, Tick, decode
from plane.runtime.kill_target import KillTarget, ProcessTarget
from plane.runtime.logs.capture_limit import bound

__all__ = ["Watchdog", "main"]

# How often the deadlines are looked at. Longer sleeps would notice late that the machine was suspended.
POLL_INTERVAL_S = 0.5
POLL_INTERVAL_NS = round(POLL_INTERVAL_S * 1e9)
RECEIVE_BYTES = 256 * 1024
# A drone that has sent nothing for so long, two ticks and a half, does not read its backends' output either.
UNREAD_AFTER_NS = 2_500_000_000
# Log lines that wait for whoever reads stderr; more are dropped.
LOG_QUEUE_LINES = 1000
STDERR = 2
# The memory of the usual 8 MiB would be locked.
THREAD_STACK_BYTES = 256 * 1024
# mlockall(2): MCL_CURRENT.
LOCK_CURRENT_PAGES = 1


class Watchdog:
    """Enforces the deadlines that arrive on ``drone``."""

    def __init__(self, drone: socket.socket, *, ends_with_drone: bool) -> None:
        drone.setblocking(False)
        self._drone = drone
        self._table = DeadlineTable(ends_with_drone)
        self._targets: dict[str, KillTarget | None] = {}
        self._killer = Killer()
        self._rest = b""
        self._gone = False
        self._last_message_ns = now_ns()
        self._killing: set[str] = set()
        self.log: queue.Queue[bytes] = queue.Queue(LOG_QUEUE_LINES)

    def run(self) -> None:
        """Enforce until the drone is gone and nothing is left."""
        next_look_ns = 0
        poll = select.poll()
        poll.register(self._drone, select.POLLIN)
        while not (self._gone and self._table.all_ended):
            # Without a backend only a message changes anything.
            timeout_s = POLL_INTERVAL_S if len(self._table) else None
            if self._gone:
                time.sleep(POLL_INTERVAL_S)
            elif poll.poll(None if timeout_s is None else timeout_s * 1000):
                self._receive()
                if now_ns() < next_look_ns and not self._gone:
                    continue
            next_look_ns = now_ns() + POLL_INTERVAL_NS
            try:
                self._enforce()
            except Exception as error:
                self._say("the watchdog failed and tries again", error=repr(error))

    def _receive(self) -> None:
        try:
            data = self._drone.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone = True
            if len(self._table):
                self._say("the drone has ended; its watchdog enforces the leases", backends=str(len(self._table)))
            return
        self._last_message_ns = now_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = decode(line)
        except (ValueError, KeyError, TypeError) as error:
            # Of a drone of another version; the rest is still enforced.
            self._say("message not understood by the watchdog", error=repr(error))
            return
        match message:
            case Hold(backend_id, soft_ns, hard_ns, target):
                self._table.hold(backend_id, soft_ns, hard_ns)
                self._targets[backend_id] = target
            case Release(backend_id):
                self._table.release(backend_id)
                self._killer.forget(backend_id, self._targets.pop(backend_id, None))
                self._killing.discard(backend_id)
            case Tick(number):
                # A drone that reads no answers has enough of them waiting.
                with contextlib.suppress(OSError):
                    self._drone.send(b"%d\n" % number)

    def _status(self, now: int) -> DroneStatus:
        if self._gone:
            return DroneStatus.GONE
        silent = now - self._last_message_ns >= DRONE_SILENT_AFTER_NS
        return DroneStatus.SILENT if silent else DroneStatus.ALIVE

    def _enforce(self) -> None:
        now = now_ns()
        drone = self._status(now)
        due: dict[str, KillTarget | None] = {}
        for backend_id, step in self._table.due(now, drone):
            if step is Step.ASK_TO_STOP:
                self._say("lease expires and the drone does not act; backend is asked to stop", backend=backend_id)
                self._killer.ask_to_stop(backend_id, self._targets.get(backend_id))
                continue
            if backend_id not in self._killing:
                self._killing.add(backend_id)
                self._say("lease expired and the drone did not act; backend is killed", backend=backend_id)
            due[backend_id] = self._targets.get(backend_id)
        self._killer.check_stops()
        if due:
            alive = self._killer.kill(due, now)
            for backend_id in due:
                self._table.killed(backend_id, now, alive=backend_id in alive)

    def unread_outputs(self) -> list[str]:
        """Return the files that backends append their output to while their drone does not read them.

        Called by another thread.
        """
        if not self._gone and now_ns() - self._last_message_ns < UNREAD_AFTER_NS:
            return []
        targets = list(self._targets.values())
        return [target.output for target in targets if isinstance(target, ProcessTarget) and target.output]

    def _say(self, event: str, **fields: str) -> None:
        """Queue a warning in the form of the drone's log."""
        if os.environ.get("PLANE_LOG", "").lower() == "error":
            return
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if os.environ.get("PLANE_LOG_JSON"):
            line = json.dumps({**fields, "event": event, "level": "warning", "timestamp": at})
        else:
            line = " ".join([at, "[warning  ]", event, *(f"{name}={value}" for name, value in fields.items())])
        with contextlib.suppress(queue.Full):
            self.log.put_nowait(f"{line}\n".encode())


def now_ns() -> int:
    """Return the time since the machine's start, suspends included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _write_log(watchdog: Watchdog) -> None:
    while True:
        line = watchdog.log.get()
        with contextlib.suppress(OSError):
            os.write(STDERR, line)
        watchdog.log.task_done()


def _bound_outputs(watchdog: Watchdog, limit_bytes: int) -> None:
    while True:
        for path in watchdog.unread_outputs():
            bound(path, limit_bytes)
        time.sleep(POLL_INTERVAL_S)


def _protect() -> None:
    """Stay when others are asked to end, when memory is short, and when the disk with our program hangs."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w", encoding="ascii") as file:
            file.write("-1000")
        ctypes.CDLL(None).mlockall(LOCK_CURRENT_PAGES)


def main() -> None:
    """Enforce what the drone sends on the inherited socket."""
    drone, ends_with_drone = socket.socket(fileno=int(sys.argv[1])), sys.argv[2] == "1"
    watchdog = Watchdog(drone, ends_with_drone=ends_with_drone)
    threading.stack_size(THREAD_STACK_BYTES)
    for work, arguments in ((_write_log, (watchdog,)), (_bound_outputs, (watchdog, int(sys.argv[3])))):
        threading.Thread(target=work, args=arguments, daemon=True).start()
    _protect()
    watchdog.run()
    # The last lines, if somebody reads them.
    time.sleep(POLL_INTERVAL_S)


if __name__ == "__main__":
    main()
