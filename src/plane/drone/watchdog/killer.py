"""Kills what runs of a backend: through its control group, its process ids, its environment, or its engine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from plane.drone.watchdog.engine_requests import EngineRequests
from plane.runtime.kill_target import ContainerTarget, KillTarget, ProcessTarget
from plane.runtime.process.procfs import kill_each, kill_marked, members, signal_descendant, signal_process, start_time
from plane.runtime.process.soft_stop import SoftStop

__all__ = ["EnvironmentSearch", "Killer"]

# A container that is still there so long after the first kill is removed: it may have been created and not started.
REMOVE_AFTER_NS = 5_000_000_000
# An engine that has not answered for so long is not waited for any more: what could be killed without it was killed.
ENGINE_GIVEN_UP_NS = 600_000_000_000


class EnvironmentSearch:
    """Kills processes that carry the id of a backend in their environment, on a thread of its own.

    Whoever reads a process's environment waits for the lock of its memory, which a process can hold for as long as it
    likes (a page fault on a file system that hangs). That must not hold up what is killed by other means.
    """

    def __init__(self) -> None:
        self._wanted: tuple[frozenset[str], frozenset[int]] | None = None
        self._changed = threading.Condition()
        # The backends that were searched for at least once, and those of which the last search found anything.
        self._searched: frozenset[str] = frozenset()
        self._found: set[str] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def request(self, backend_ids: Collection[str], spare: Collection[int]) -> None:
        """Have these searched for and killed, all but the processes ``spare``; it replaces the former request."""
        with self._changed:
            self._wanted = frozenset(backend_ids), frozenset(spare)
            self._changed.notify()

    def may_live(self, backend_id: str) -> bool:
        """Whether the last search found anything of a backend, or it was not searched for yet."""
        return backend_id not in self._searched or backend_id in self._found

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                assert self._wanted is not None
                (backend_ids, spare), self._wanted = self._wanted, None
            found = kill_marked(*backend_ids, spare=spare)
            self._found, self._searched = found, backend_ids


class Killer:
    """Asks backends to stop, and kills them."""

    def __init__(self) -> None:
        self._engines = EngineRequests()
        self._search = EnvironmentSearch()
        # When each backend was first killed.
        self._since_ns: dict[str, int] = {}
        self._stops: dict[str, SoftStop] = {}

    def ask_to_stop(self, backend_id: str, target: KillTarget | None) -> None:
        """Send SIGTERM to the backend's processes; `check_stops` does the rest."""
        if isinstance(target, ProcessTarget):
            stop = self._stops[backend_id] = SoftStop(target)
            stop.begin()
        elif isinstance(target, ContainerTarget):
            signal_process(target.pid, target.started_at, signal.SIGTERM)

    def check_stops(self) -> None:
        """Let the supervisors of backends that were asked to stop, and have, note that."""
        for backend_id, stop in list(self._stops.items()):
            if stop.has_ended():
                del self._stops[backend_id]

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
                killed = self._kill_container(target, now_ns, since_ns)
            else:
                killed = _kill_processes(target or ProcessTarget(), spared, spare_supervisor=first)
            if killed or self._search.may_live(backend_id):
                alive.add(backend_id)
        self._search.request(backends.keys(), spared)
        return alive

    def _kill_container(self, target: ContainerTarget, now_ns: int, since_ns: int) -> bool:
        killed = signal_process(target.pid, target.started_at, signal.SIGKILL)
        remove = now_ns - since_ns >= REMOVE_AFTER_NS
        unknown = self._engines.kill(target.engine, target.name, now_ns, remove=remove)
        return killed or (unknown and now_ns - since_ns < ENGINE_GIVEN_UP_NS)

    def forget(self, backend_id: str, target: KillTarget | None) -> None:
        """The backend is not looked at any more."""
        self._stops.pop(backend_id, None)
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
        # A soft end may have stopped it.
        signal_process(target.pid, target.started_at, signal.SIGCONT)
        killed = True
    if target.bubblewrap:
        # The init of its namespace, with which all in it ends.
        signal_descendant(target.pid, target.started_at, depth=1, number=signal.SIGKILL)
    for group in map(Path, target.groups):
        found = [pid for pid in members(group) if pid not in spared]
        kill_each(found)
        killed = killed or bool(found)
    return killed
