"""Read the environments of processes of this machine, and do not wait for one that cannot be read.

A read of ``/proc/PID/environ`` waits for the lock of the process's memory. A process can hold that for any time, by a
page fault on a file system of its own (FUSE). So can it delay `ps`, and all that reads the environment of each process.

Also used by the drone's watchdog, so this file imports only the standard library.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["EnvironmentReader"]

# A process that holds the lock longer is skipped. A process that works holds it for milliseconds.
TIMEOUT_S = 0.5
# Each process that is skipped holds a thread until it releases the lock.
HANGING_LIMIT = 100


class EnvironmentReader:
    """Reads environments, from any thread.

    A process that is skipped once is skipped at once until it can be read.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        # One search at a time: others would wait for the same processes.
        self._lock = threading.Lock()
        self._hanging: dict[int, _Reading] = {}

    def read(self, pids: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the environments of these processes, except those that cannot be read. Blocks.

        Raises:
            OSError: too many processes cannot be read.
        """
        with self._lock:
            self._hanging = {pid: reading for pid, reading in self._hanging.items() if reading.is_alive()}
            remaining = iter([pid for pid in pids if pid not in self._hanging])
            found: dict[int, list[bytes]] = {}
            while True:
                reading = _Reading(remaining)
                reading.start()
                hanging = reading.wait(self._timeout_s)
                found |= reading.found
                if hanging is None:
                    return found
                self._hanging[hanging] = reading
                if len(self._hanging) > HANGING_LIMIT:
                    raise OSError(f"the environments of more than {HANGING_LIMIT} processes cannot be read")


class _Reading(threading.Thread):
    """Reads environments one after the other, until it is abandoned."""

    def __init__(self, pids: Iterator[int]) -> None:
        super().__init__(name="environments", daemon=True)
        self.found: dict[int, list[bytes]] = {}
        self._pids = pids
        self._current: int | None = None
        self._count = 0
        self._abandoned = False
        # Held while one of the two threads takes the next process, or the result of the last one.
        self._turn = threading.Lock()

    def run(self) -> None:
        while True:
            with self._turn:
                self._current = None if self._abandoned else next(self._pids, None)
                self._count += 1
                if self._current is None:
                    return
                pid = self._current
            environment = _environment(pid)
            with self._turn:
                if not self._abandoned:
                    self.found[pid] = environment

    def wait(self, timeout_s: float) -> int | None:
        """Return when all are read, or the process that has not been read for ``timeout_s``; then abandon the rest."""
        seen = -1
        while True:
            self.join(timeout_s)
            with self._turn:
                if not self.is_alive() or self._current is None:
                    return None
                if self._count == seen:
                    self._abandoned = True
                    return self._current
                seen = self._count


def _environment(pid: int) -> list[bytes]:
    """Return the environment of a process; empty for a zombie, a kernel thread, or another user's process."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
