"""Asks all processes of a backend to stop, and says when they have.

A backend's supervisor ends as soon as the command does, and what is left is killed then. When a backend is asked to
stop, that would take the grace from whatever a wrapper has started: ``sh -c 'app; …'`` and ``npm start`` end at once.
So the supervisor is stopped (SIGSTOP) first, and continued when nothing else of the backend runs; then it notes how the
command ended. In bubblewrap that is the init of the namespace, with whose end the kernel kills all in it.

All processes are stopped before any of them is asked: none forks, ends or changes its parent while the others are
looked for. So each that is there is asked once, and what their handlers start then is left to do its work. A wrapper
has its SIGTERM before it could begin its next command (docs/decisions/0016-soft-end.md).

Used by `process.runtime`, and by the drone's watchdog, so only the standard library here, as there. Each call takes
from a fraction of a millisecond to a few `STOP_TIMEOUT_S`.
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

# For processes to take note of a SIGSTOP.
STOP_TIMEOUT_S = 0.1
STOP_POLL_S = 0.0005
# A process may fork before it is stopped; its child is found in the next round.
ROUNDS = 20

# Its id and its start time, which no other process has had.
_Process: TypeAlias = tuple[int, int]


class SoftStop:
    """The soft end of one backend's processes.

    Attributes:
        asked: ids of the processes that `begin` has asked.
    """

    def __init__(self, target: ProcessTarget) -> None:
        self.asked: list[int] = []
        self._target = target

    def begin(self) -> bool:
        """Ask all that runs; returns whether there was anything: a supervisor may not have started its command yet."""
        supervisor = _last_supervisor(self._target)
        if supervisor is None:
            return False
        _stop([supervisor])
        asked: set[_Process] = set()
        for _ in range(ROUNDS):
            found = self._processes() - asked
            if not found:
                break
            _stop(found)
            asked |= found
        for process in asked:
            signal_process(*process, signal.SIGTERM)
        # The youngest first: a parent that waits for stopped children, as sudo does, finds none.
        for process in sorted(asked, key=lambda each: (each[1], each[0]), reverse=True):
            signal_process(*process, signal.SIGCONT)
        self.asked = [pid for pid, _ in asked]
        # One that has just ended is a zombie: its supervisor is stopped.
        return bool(asked) or len(descendants(supervisor[0])) > 1

    def has_ended(self) -> bool:
        """Return whether nothing but supervisors runs any more; then their last one is continued."""
        # Twice: a process that changes its parent while all are looked at may be missed once.
        if self._processes() or self._processes():
            return False
        continue_supervisor(self._target)
        return True

    def _processes(self) -> set[_Process]:
        """The backend's processes that run, without its supervisors."""
        target = self._target
        found = {pid for group in map(Path, target.groups) for pid in members(group)}
        if start_time(target.pid) == target.started_at:
            found.update(descendants(target.pid))
        found.discard(target.pid)
        if target.bubblewrap:
            found.discard(first_descendant(target.pid, depth=1) or 0)
        return {(pid, start_time(pid)) for pid in found if is_alive(pid)}


def continue_supervisor(target: ProcessTarget) -> None:
    """Let a supervisor that was stopped note the end of its command."""
    if (supervisor := _last_supervisor(target)) is not None:
        signal_process(*supervisor, signal.SIGCONT)


def _last_supervisor(target: ProcessTarget) -> _Process | None:
    """The parent of the command, as process id and start time; None: it is not there (yet)."""
    if target.pid <= 0 or start_time(target.pid) != target.started_at:
        return None
    if not target.bubblewrap:
        return target.pid, target.started_at
    init = first_descendant(target.pid, depth=1)
    return None if init is None else (init, start_time(init))


def _stop(processes: Collection[_Process]) -> None:
    """Stop processes; returns once they are. One in the middle of a fork completes it first, and has a child then."""
    for process in processes:
        signal_process(*process, signal.SIGSTOP)
    end = time.monotonic() + STOP_TIMEOUT_S
    running = [pid for pid, _ in processes]
    # One that waits for a child of its own to start a program (vfork) cannot be stopped before the child has.
    while running and time.monotonic() < end:
        running = [pid for pid in running if is_alive(pid) and not is_stopped(pid)]
        if running:
            time.sleep(STOP_POLL_S)
