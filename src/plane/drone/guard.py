"""The guard: ends a drone's processes when their keys' leases are over and no drone is there to do it.

A program of its own (``python -m plane.drone.guard STORE DESCRIPTOR``), which `guard_keeper` starts beside the drone,
in a session of its own. While the drone lives it waits in the kernel for the other end of a pipe to close. Then it does
what a drone without a controller would: asks a backend to stop at the soft deadline of its lease, kills it at the hard
one. It acts only while it has the lock of the state store, which every drone holds, and on what is stored at that
moment: so never beside a drone, and never on what a drone that came and went has renewed.

It ends when there is nothing left to guard, or another guard has its place. Everything that it needs is loaded when it
starts: a drone may be gone for want of memory, or for an upgrade that failed (docs/decisions/0010-guard.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from plane.decisions.key_lease import KeyLease, LeaseAction
from plane.drone.clock import DroneClock
from plane.drone.guarded_backends import GuardedBackend, read_guarded
from plane.protocol import codec
from plane.runtime.processes import kill_each, kill_marked, members, signal_descendant, start_time

__all__ = ["Guard", "main", "place_of"]

# How often is looked whether a deadline has passed, or a drone is back. Longer sleeps would miss a suspended machine.
LOOK_INTERVAL_S = 0.5
STDERR = 2


def place_of(db: Path) -> Path:
    """The file that says which guard of a state store is in charge: the one that has made it. It is empty."""
    return db.with_name(f"{db.name}.guard")


class Guard:
    """In charge of one drone's backends from the moment it is made, until another guard is, or nobody."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self._leases: dict[str, KeyLease] = {}
        # Those that have been killed once, but for the supervisors; and those of which nothing is left.
        self._killed: set[str] = set()
        self._over: set[str] = set()
        self._told = False
        place_of(db).unlink(missing_ok=True)
        self._place = os.open(place_of(db), os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def guard(self) -> None:
        """Act while no drone does; returns when there is nothing left to do."""
        while self._is_in_charge() and self._db.exists():
            try:
                with self._held_lock() as alone:
                    if alone and not self._look():
                        return
            except (OSError, sqlite3.Error) as error:
                if not self._told:
                    _say("the guard cannot read the state store; it goes on trying", error=str(error))
                self._told = True
            time.sleep(LOOK_INTERVAL_S)

    def _is_in_charge(self) -> bool:
        try:
            return os.path.samestat(place_of(self._db).stat(), os.fstat(self._place))
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _held_lock(self) -> Iterator[bool]:
        """True: no drone has the state store, and none gets it within the block; a starting one waits for it."""
        lock = os.open(f"{self._db}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _locked(lock)
        finally:
            os.close(lock)

    def _look(self) -> bool:
        """Do what is due; False: nothing is left to guard."""
        reading, backends = read_guarded(self._db)
        now = DroneClock(reading, boot_id=reading.boot_id).now()
        due = []
        for backend in backends:
            lease = self._leases.setdefault(backend.backend_id, KeyLease(backend.deadlines))
            lease.renewed(backend.deadlines)
            actions = lease.due(now)
            if LeaseAction.TERMINATE_SOFT in actions:
                self._ask_to_stop(backend)
            if LeaseAction.TERMINATE_HARD in actions:
                _say("no drone, and key's lease is over; backend is killed", backend=backend.backend_id)
            if lease.wake_at() is None and backend.backend_id not in self._over:
                due.append(backend)
        self._kill(due)
        return any(backend.backend_id not in self._over for backend in backends)

    def _ask_to_stop(self, backend: GuardedBackend) -> None:
        _say("no drone, and key's lease is running out; backend is asked to stop", backend=backend.backend_id)
        if handle := backend.handle:
            # Below bubblewrap is its init and then the command; below the supervising shell is the command.
            depth = 2 if handle.bubblewrap else 1
            signal_descendant(handle.pid, handle.started_at, depth=depth, number=signal.SIGTERM)

    def _kill(self, backends: list[GuardedBackend]) -> None:
        """SIGKILL, until nothing is left; at first supervisors are spared, to tell how their commands ended."""
        spared = set()
        for backend in backends:
            if (handle := backend.handle) is None:
                continue
            if backend.backend_id not in self._killed and start_time(handle.pid) == handle.started_at:
                spared.add(handle.pid)
            if handle.bubblewrap:
                # The init of its namespace, which ends all in it.
                signal_descendant(handle.pid, handle.started_at, depth=1, number=signal.SIGKILL)
            for group in backend.groups:
                kill_each(pid for pid in members(group) if pid not in spared)
        if backends:
            kill_marked(*(backend.backend_id for backend in backends), spare=spared)
        for backend in backends:
            if backend.backend_id not in self._killed:
                self._killed.add(backend.backend_id)
            elif not any(members(group) for group in backend.groups):
                self._over.add(backend.backend_id)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(event: str, **facts: str) -> None:
    """A warning as the drone's own log has them, without its library; whoever read that log may be gone."""
    if os.environ.get("PLANE_LOG", "").lower() == "error":
        return
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if os.environ.get("PLANE_LOG_JSON"):
        line = codec.encode({**facts, "event": event, "level": "warning", "timestamp": at}).decode()
    else:
        line = " ".join([at, "[warning  ]", event, *(f"{name}={value}" for name, value in facts.items())])
    with contextlib.suppress(OSError):
        os.write(STDERR, f"{line}\n".encode())


def main() -> None:
    """Take charge, wait for the drone's end, and guard."""
    db, drone = Path(sys.argv[1]), int(sys.argv[2])
    try:
        guard = Guard(db)
    except OSError as error:
        _say("the guard cannot begin", error=str(error))
        sys.exit(1)
    # Returns when the drone has ended, however it did: nothing is ever written.
    os.read(drone, 1)
    guard.guard()


if __name__ == "__main__":
    main()
