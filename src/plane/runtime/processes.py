"""Looks at the processes of this machine through /proc: descendants, and those that carry a backend's id."""

from __future__ import annotations

import os
import signal
from pathlib import Path

__all__ = ["descendants", "first_descendant", "kill_marked", "start_time"]

# A process may fork while the list is read; then its child is found on the next round.
ROUNDS = 20


def first_descendant(pid: int, *, depth: int) -> int | None:
    """The first child of the first child …, ``depth`` generations below ``pid``; None if there is none."""
    for _ in range(depth):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        if not children:
            return None
        pid = int(children[0])
    return pid


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since the machine's start; -1 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    # The name of the command is in parentheses and may contain any. Field 22 of all; see proc(5).
    return int(stat.rpartition(")")[2].split()[19])


def descendants(pid: int) -> list[int]:
    """The process, its children, and theirs, as far as they have not been given to another parent."""
    found = [pid]
    for parent in found:
        try:
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        except OSError:
            continue
    return found


def kill_marked(backend_id: str, *, spare: int | None = None) -> None:
    """SIGKILL for all processes that have the backend's id in their environment, but ``spare``, until there is none."""
    marker = b"SESSION_BACKEND_ID=" + backend_id.encode()
    spared = {os.getpid(), spare}
    for _ in range(ROUNDS):
        found = [pid for pid in _pids() if pid not in spared and marker in _environment(pid)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _environment(pid: int) -> list[bytes]:
    """Empty for a zombie, a kernel thread, or another user's process."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
