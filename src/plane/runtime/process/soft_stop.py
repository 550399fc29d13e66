"""Send SIGTERM to all processes of a backend, and detect when they have ended.

A supervisor ends as soon as its command does, and what is left of the backend is killed then. That would deprive the
children of a wrapper of the grace period: ``sh -c 'app; …'`` and ``npm start`` end at once on SIGTERM. So the
    supervisor is stopped (SIGSTOP) first, and continued when nothing else of the backend runs; then it writes the exit
    code. In bubblewrap that supervisor is the init of the namespace, with whose end the kernel kills all processes in
    it.

All processes are stopped before any of them receives SIGTERM, so that none forks, ends or changes its parent while the
others are searched. Each process receives SIGTERM once; processes that their handlers start do not. A wrapper receives
its SIGTERM before it can begin its next command (docs/decisions/0016-soft-end.md).

Used by `process.running_process` and by the drone's watchdog, so this file imports only the standard library. Each call
takes from a fraction of a millisecond to a few `STOP_TIMEOUT_S`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

from plane.runtime.kill_target import ProcessTarget
from plane.runtime.process.procfs import (
    descendants,
    first_descendant,
    is_alive,
    is_stopped,
    members,
    signal_process,
    start_time,
)

__all__ = ["SoftStop", "continue_supervisor"]

# How long processes may take to react to SIGSTOP.
STOP_TIMEOUT_S = 0.1
STOP_POLL_INTERVAL_S = 0.0005
# A process may fork before it stops; its child is found in the next round.
ROUNDS = 20

# Process id and start time, which together no other process has had.
_Process: TypeAlias = tuple[int, int]


class SoftStop:
    """The soft stop of one backend's processes.

    Attributes:
        signalled: ids of the processes that `begin` has sent SIGTERM to.
    """

    def __init__(self, target: ProcessTarget) -> None:
        self.signalled: list[int] = []
        self._target = target

    def begin(self) -> bool:
        """Send SIGTERM to all processes. Return False if there was none: the command may not have been started yet."""
        supervisor = _last_supervisor(self._target)
        if supervisor is None:
            return False
        _stop([supervisor])
        signalled: set[_Process] = set()
        for _ in range(ROUNDS):
            found = self._processes() - signalled
            if not found:
                break
            _stop(found)
            signalled |= found
        for process in signalled:
            signal_process(*process, signal.SIGTERM)
        # Continue the youngest first: a parent that waits for stopped children, such as sudo, finds none.
        for process in sorted(signalled, key=lambda each: (each[1], each[0]), reverse=True):
            signal_process(*process, signal.SIGCONT)
        self.signalled = [pid for pid, _ in signalled]
        # A command that has just ended is a zombie, because its supervisor is stopped.
        return bool(signalled) or len(descendants(supervisor[0])) > 1

    def has_ended(self) -> bool:
        """Return whether only supervisors still run. If so, continue the last supervisor."""
        # Twice: a process that changes its parent during the search may be missed once.
        if self._processes() or self._processes():
            return False
        continue_supervisor(self._target)
        return True

    def _processes(self) -> set[_Process]:
        """Return the backend's running processes, without its supervisors."""
        target = self._target
        found = {pid for group in map(Path, target.groups) for pid in members(group)}
        if start_time(target.pid) == target.started_at:
            found.update(descendants(target.pid))
        found.discard(target.pid)
        if target.bubblewrap:
            found.discard(first_descendant(target.pid, depth=1) or 0)
        return {(pid, start_time(pid)) for pid in found if is_alive(pid)}


def continue_supervisor(target: ProcessTarget) -> None:
    """Continue stopped supervisors, so that they write how the command ended and exit."""
    if (supervisor := _last_supervisor(target)) is not None:
        signal_process(*supervisor, signal.SIGCONT)
    if target.bubblewrap:
        # It was stopped by somebody else.
        signal_process(target.pid, target.started_at, signal.SIGCONT)


def _last_supervisor(target: ProcessTarget) -> _Process | None:
    """Return the parent of the command; None if it does not run (yet)."""
    if target.pid <= 0 or start_time(target.pid) != target.started_at:
        return None
    if not target.bubblewrap:
        return target.pid, target.started_at
    init = first_descendant(target.pid, depth=1)
    return None if init is None else (init, start_time(init))


def _stop(processes: Collection[_Process]) -> None:
    """Stop processes and wait until they are stopped. A process in the middle of a fork completes the fork first."""
    for process in processes:
        signal_process(*process, signal.SIGSTOP)
    end = time.monotonic() + STOP_TIMEOUT_S
    running = [pid for pid, _ in processes]
    # A parent in vfork cannot be stopped before its child has executed its program.
    while running and time.monotonic() < end:
        running = [pid for pid in running if is_alive(pid) and not is_stopped(pid)]
        if running:
            time.sleep(STOP_POLL_INTERVAL_S)
