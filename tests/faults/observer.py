"""The observer: receives the reports of all processes on a Unix socket, and keeps the first and the last of each."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.history import Life

__all__ = ["Observer", "boottime"]

# A process that was not heard of for so long has ended, or the machine is very busy.
ALIVE_WITHIN_S = 1.0


def boottime() -> float:
    """Return the time that processes report, in this process's time namespace: that of the machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class _Seen:
    key: str
    token: int
    backend: str
    host: str
    process: str
    first: float
    last: float


class Observer:
    """Receives reports on a thread of its own until closed.

    Args:
        since: when the run began.
    """

    def __init__(self, path: Path, since: float, now: Callable[[], float] = boottime) -> None:
        self._since = since
        self._now = now
        self._seen: dict[tuple[str, str, str], _Seen] = {}
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(4096):
            report = json.loads(data)
            at = report.pop("at")
            life = (report["host"], report["process"], report["backend"])
            with self._lock:
                seen = self._seen.get(life)
                if seen is None:
                    self._seen[life] = _Seen(**report, first=at, last=at)
                else:
                    seen.last = max(seen.last, at)

    def lives(self) -> list[Life]:
        """Return all lives so far."""
        with self._lock:
            return [
                Life(
                    each.first - self._since,
                    each.last - self._since,
                    each.key,
                    each.token,
                    each.backend,
                    each.host,
                    each.process,
                )
                for each in self._seen.values()
            ]

    def alive(self) -> set[str]:
        """Return the backends that have a process now."""
        since = self._now() - ALIVE_WITHIN_S
        with self._lock:
            return {each.backend for each in self._seen.values() if each.last >= since}

    def close(self) -> None:
        """End the thread."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
