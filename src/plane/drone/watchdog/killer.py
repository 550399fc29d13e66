"""Kills what runs of a backend: through its control group, its process ids, its environment, or its engine."""

from __future__ import annotations

import signal
from pathlib import Path

from plane.drone.watchdog.engine_requests import EngineRequests
from plane.runtime.kill_target import ContainerTarget, KillTarget, ProcessTarget
from plane.runtime.processes import kill_each, kill_marked, members, signal_descendant, signal_process, start_time

__all__ = ["Killer"]

# A container that is still there so long after the first kill is removed: it may have been created and not started.
REMOVE_AFTER_NS = 5_000_000_000


class Killer:
    """Asks backends to stop, and kills them."""

    def __init__(self) -> None:
        self._engines = EngineRequests()
        # When each backend was first killed.
        self._since_ns: dict[str, int] = {}

    @staticmethod
    def ask_to_stop(target: KillTarget | None) -> None:
        """Send SIGTERM to the backend's command."""
        if isinstance(target, ProcessTarget):
            # Below bubblewrap is its init and then the command; below the supervising shell is the command.
            depth = 2 if target.bubblewrap else 1
            signal_descendant(target.pid, target.started_at, depth=depth, number=signal.SIGTERM)
        elif isinstance(target, ContainerTarget):
            signal_process(target.pid, target.started_at, signal.SIGTERM)

    def kill(self, backend_id: str, target: KillTarget | None, now_ns: int) -> bool:
        """Kill all of the backend once; returns whether something of it was there, or may have been."""
        first = backend_id not in self._since_ns
        since_ns = self._since_ns.setdefault(backend_id, now_ns)
        if isinstance(target, ContainerTarget):
            ran = signal_process(target.pid, target.started_at, signal.SIGKILL)
            remove = now_ns - since_ns >= REMOVE_AFTER_NS
            return self._engines.kill(target.engine, target.name, now_ns, remove=remove) or ran
        return _kill_processes(backend_id, target or ProcessTarget(), spare_supervisor=first)

    def forget(self, backend_id: str, target: KillTarget | None) -> None:
        """The backend is not looked at any more."""
        self._since_ns.pop(backend_id, None)
        if isinstance(target, ContainerTarget):
            self._engines.forget(target.engine, target.name)


def _kill_processes(backend_id: str, target: ProcessTarget, *, spare_supervisor: bool) -> bool:
    """``spare_supervisor``: it notes how its command ended, and then ends by itself."""
    spared = {target.pid} if spare_supervisor and start_time(target.pid) == target.started_at else set()
    if target.bubblewrap:
        # The init of its namespace, with which all in it ends.
        signal_descendant(target.pid, target.started_at, depth=1, number=signal.SIGKILL)
    ran = bool(spared)
    for group in map(Path, target.groups):
        found = [pid for pid in members(group) if pid not in spared]
        kill_each(found)
        ran = ran or bool(found)
    return kill_marked(backend_id, spare=spared) or ran
