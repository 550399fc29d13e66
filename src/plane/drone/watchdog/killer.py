"""Kills what runs of a backend: through its control group, its process ids, its environment, or its engine."""

from __future__ import annotations

import signal
from collections.abc import Mapping
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

    def kill(self, backends: Mapping[str, KillTarget | None], now_ns: int) -> set[str]:
        """Kill all of these backends once; returns those of which something was there, or may have been.

        All together, since the search by environment goes through all processes of the machine.
        """
        alive: set[str] = set()
        spared: set[int] = set()
        for backend_id, target in backends.items():
            first = backend_id not in self._since_ns
            since_ns = self._since_ns.setdefault(backend_id, now_ns)
            if isinstance(target, ContainerTarget):
                killed = self._kill_container(target, now_ns, remove=now_ns - since_ns >= REMOVE_AFTER_NS)
            else:
                killed = _kill_processes(target or ProcessTarget(), spared, spare_supervisor=first)
            if killed:
                alive.add(backend_id)
        searched = (name for name, target in backends.items() if not isinstance(target, ContainerTarget))
        return alive | kill_marked(*searched, spare=spared)

    def _kill_container(self, target: ContainerTarget, now_ns: int, *, remove: bool) -> bool:
        killed = signal_process(target.pid, target.started_at, signal.SIGKILL)
        return self._engines.kill(target.engine, target.name, now_ns, remove=remove) or killed

    def forget(self, backend_id: str, target: KillTarget | None) -> None:
        """The backend is not looked at any more."""
        self._since_ns.pop(backend_id, None)
        if isinstance(target, ContainerTarget):
            self._engines.forget(target.engine, target.name)


def _kill_processes(target: ProcessTarget, spared: set[int], *, spare_supervisor: bool) -> bool:
    """Kill what is known of a backend's processes; returns whether there was any.

    ``spare_supervisor``: it is added to ``spared``, since it notes how its command ended, and then ends by itself.
    """
    killed = False
    if spare_supervisor and start_time(target.pid) == target.started_at:
        spared.add(target.pid)
        killed = True
    if target.bubblewrap:
        # The init of its namespace, with which all in it ends.
        signal_descendant(target.pid, target.started_at, depth=1, number=signal.SIGKILL)
    for group in map(Path, target.groups):
        found = [pid for pid in members(group) if pid not in spared]
        kill_each(found)
        killed = killed or bool(found)
    return killed
