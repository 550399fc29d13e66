"""The watchdog's program: ``python -m plane.drone.watchdog.main DESCRIPTOR ENDS_WITH_DRONE OUTPUT_LIMIT_BYTES``.

The drone sends it the deadlines of its backends over a socket pair (`messages`). The watchdog kills each backend whose
hard deadline passed 3 s ago, whether its drone is dead, stopped, stuck in a system call or slow. While the drone is
dead or silent, it also stops backends at their soft deadlines. `plane.decisions.backends.deadline_enforcement` decides
what is due. The watchdog exits when its drone is gone and no deadline is left.

The main thread waits for nothing but the next message: no disk, no lock, no engine. Log lines and the output of
backends are handled by threads of their own, because they may block.
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
from plane.runtime.logs.output_capture import bound

__all__ = ["Watchdog", "main"]

# How often the deadlines are checked. With longer sleeps a suspend of the machine would be noticed late.
POLL_INTERVAL_S = 0.5
POLL_INTERVAL_NS = round(POLL_INTERVAL_S * 1e9)
RECEIVE_BYTES = 256 * 1024
# A drone that has sent nothing for this long, two and a half ticks, does not read its backends' output either.
UNREAD_AFTER_NS = 2_500_000_000
# Log lines that wait to be written to stderr; more are dropped.
LOG_QUEUE_LINES = 1000
STDERR = 2
# The default of 8 MiB would be locked in memory.
THREAD_STACK_BYTES = 256 * 1024
# mlockall(2): MCL_CURRENT.
LOCK_CURRENT_PAGES = 1


class Watchdog:
    """Enforces the deadlines that arrive on ``drone``.

    Attributes:
        log: log lines to be written by another thread.
    """

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
        """Enforce deadlines until the drone is gone and no deadline is left."""
        next_check_ns = 0
        poll = select.poll()
        poll.register(self._drone, select.POLLIN)
        while not (self._gone and self._table.all_ended):
            # Without backends only a message can change anything.
            timeout_s = POLL_INTERVAL_S if len(self._table) else None
            if self._gone:
                time.sleep(POLL_INTERVAL_S)
            elif poll.poll(None if timeout_s is None else timeout_s * 1000):
                self._receive()
                if now_ns() < next_check_ns and not self._gone:
                    continue
            next_check_ns = now_ns() + POLL_INTERVAL_NS
            try:
                self._enforce()
            except Exception as error:
                self._warn("watchdog check failed; retrying", error=repr(error))

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
                self._warn("drone ended; its watchdog enforces the leases", backends=str(len(self._table)))
            return
        self._last_message_ns = now_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            message = decode(line)
        except (ValueError, KeyError, TypeError) as error:
            # The drone may have another version. Other messages are still enforced.
            self._warn("message not understood by the watchdog", error=repr(error))
            return
        match message:
            case Hold(backend_id, soft_ns, hard_ns, target):
                self._table.set_deadlines(backend_id, soft_ns, hard_ns)
                self._targets[backend_id] = target
            case Release(backend_id):
                self._table.release(backend_id)
                self._killer.release(backend_id, self._targets.pop(backend_id, None))
                self._killing.discard(backend_id)
            case Tick(number):
                # If the drone reads no responses, enough of them are waiting.
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
            if step is Step.REQUEST_STOP:
                self._warn("lease about to expire and the drone does not act; stopping backend", backend=backend_id)
                self._killer.request_stop(backend_id, self._targets.get(backend_id))
                continue
            if backend_id not in self._killing:
                self._killing.add(backend_id)
                self._warn("lease expired and the drone did not act; killing backend", backend=backend_id)
            due[backend_id] = self._targets.get(backend_id)
        self._killer.check_stops()
        if due:
            alive = self._killer.kill(due, now)
            for backend_id in due:
                self._table.record_kill(backend_id, now, alive=backend_id in alive)

    def unread_outputs(self) -> list[str]:
        """Return the output files that the drone does not read at the moment. Called from another thread."""
        if not self._gone and now_ns() - self._last_message_ns < UNREAD_AFTER_NS:
            return []
        targets = list(self._targets.values())
        return [target.output for target in targets if isinstance(target, ProcessTarget) and target.output]

    def _warn(self, event: str, **fields: str) -> None:
        """Queue a warning in the format of the drone's log."""
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
    """Return the time since the machine's boot (CLOCK_BOOTTIME), which includes suspends."""
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
    """Protect this process from signals to the drone's group, from the OOM killer, and from a hanging disk."""
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
    # Let the other thread write the last log lines.
    time.sleep(POLL_INTERVAL_S)


if __name__ == "__main__":
    main()
