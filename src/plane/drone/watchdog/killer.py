"""Kill the processes of a backend: by control group, process id, environment, or Docker engine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from plane.drone.watchdog.engine_requests import EngineRequests
from plane.runtime.kill_target import ContainerTarget, KillTarget, ProcessTarget
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.procfs import kill_marked, kill_pids, members, signal_descendant, signal_process, start_time
from plane.runtime.process.soft_stop import SoftStop

__all__ = ["EnvironmentSearch", "Killer"]

# How long after the first kill a container is removed: it may have been created and not started yet.
REMOVE_AFTER_NS = 5_000_000_000
# How long an engine without a response is awaited. Everything that can be killed without it has been killed by then.
ENGINE_TIMEOUT_NS = 600_000_000_000


class EnvironmentSearch:
    """Kills processes with the id of a backend in their environment, on a thread of its own.

    A search waits for processes whose environment cannot be read. That must not delay kills by other means.
    """

    def __init__(self) -> None:
        self._request: tuple[frozenset[str], frozenset[int]] | None = None
        self._changed = threading.Condition()
        # The backends of the last complete search, and those of which it found any process.
        self._searched: frozenset[str] = frozenset()
        self._alive: set[str] = set()
        self._reader = EnvironmentReader()
        threading.Thread(target=self._run, daemon=True).start()

    def request(self, backend_ids: Collection[str], spare: Collection[int]) -> None:
        """Request a search for backends, which kills all their processes but ``spare``. Replaces the former request."""
        with self._changed:
            self._request = frozenset(backend_ids), frozenset(spare)
            self._changed.notify()

    def may_live(self, backend_id: str) -> bool:
        """Return whether the last search found a process of the backend, or did not include the backend."""
        return backend_id not in self._searched or backend_id in self._alive

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._request is not None)
                assert self._request is not None
                (backend_ids, spare), self._request = self._request, None
            try:
                found = kill_marked(*backend_ids, reader=self._reader, spare=spare)
            except OSError:
                # The main loop requests another search as long as a backend may live.
                continue
            self._alive, self._searched = found, backend_ids


class Killer:
    """Stops and kills backends."""

    def __init__(self) -> None:
        self._engines = EngineRequests()
        self._search = EnvironmentSearch()
        # When each backend was first killed.
        self._since_ns: dict[str, int] = {}
        self._stops: dict[str, SoftStop] = {}

    def request_stop(self, backend_id: str, target: KillTarget | None) -> None:
        """Send SIGTERM to the backend's processes; `check_stops` detects their end."""
        if isinstance(target, ProcessTarget):
            stop = self._stops[backend_id] = SoftStop(target)
            stop.begin()
        elif isinstance(target, ContainerTarget):
            signal_process(target.pid, target.started_at, signal.SIGTERM)

    def check_stops(self) -> None:
        """Continue the supervisors of backends that have stopped, so that they write the exit codes."""
        for backend_id, stop in list(self._stops.items()):
            if stop.has_ended():
                del self._stops[backend_id]

    def kill(self, backends: Mapping[str, KillTarget | None], now_ns: int) -> set[str]:
        """Kill these backends once. Return those that were alive, or may have been.

        All backends in one call, since the search by environment reads all processes of the machine.
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
        return killed or (unknown and now_ns - since_ns < ENGINE_TIMEOUT_NS)

    def release(self, backend_id: str, target: KillTarget | None) -> None:
        """Release everything that belongs to a backend."""
        self._stops.pop(backend_id, None)
        self._since_ns.pop(backend_id, None)
        if isinstance(target, ContainerTarget):
            self._engines.discard(target.engine, target.name)


def _kill_processes(target: ProcessTarget, spared: set[int], *, spare_supervisor: bool) -> bool:
    """Kill the known processes of a backend. Return whether there was any.

    Args:
        spared: processes that are not killed.
        spare_supervisor: whether to add the supervisor to ``spared``. It writes how its command ended, then exits.
    """
    killed = False
    if spare_supervisor and start_time(target.pid) == target.started_at:
        spared.add(target.pid)
        # A soft stop may have stopped (SIGSTOP) it.
        signal_process(target.pid, target.started_at, signal.SIGCONT)
        killed = True
    if target.bubblewrap:
        # The init of its namespace, with whose end the kernel kills all processes in it.
        signal_descendant(target.pid, target.started_at, depth=1, number=signal.SIGKILL)
    for group in map(Path, target.groups):
        found = [pid for pid in members(group) if pid not in spared]
        kill_pids(found)
        killed = killed or bool(found)
    return killed
