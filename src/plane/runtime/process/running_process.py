"""A backend's running processes: how a restarted drone finds them again, and how they are stopped and killed.

`process.start` and the adoption in `process.runtime` create a `RunningProcess`; the runtime owns it.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from plane.decisions.backends.resource_usage import CpuCounter
from plane.protocol import codec
from plane.runtime.host_usage import ResourceUsage, process_usage
from plane.runtime.kill_target import ProcessTarget
from plane.runtime.process.cgroups import Cgroup
from plane.runtime.process.child_process import ChildProcess, any_exit
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.procfs import descendants, is_marked, kill_marked, members, signal_descendant
from plane.runtime.process.soft_stop import SoftStop, continue_supervisor

__all__ = ["ProcessHandle", "RunningProcess", "cgroup_of"]

# How often a kill is repeated until nothing runs.
KILL_INTERVAL_S = 0.5
# How often the remaining processes of a stopping backend are checked: at first, and at most.
STOP_POLL_INTERVAL_S = 0.05
LONGEST_STOP_POLL_INTERVAL_S = 0.5

log = structlog.get_logger("plane.runtime")


class ProcessHandle(msgspec.Struct, frozen=True):
    """What the drone stores, as JSON, to find a backend's processes again after a restart.

    Attributes:
        pid: process id of the supervisor.
        started_at: its start time, see `plane.runtime.process.procfs.start_time`.
        relay: process id and start time of the network relay, see `plane.runtime.network.relay_program`.
        cgroup: folders of its control group by controller.
    """

    pid: int
    started_at: int
    bubblewrap: bool
    memory_limit_bytes: int | None = None
    relay: tuple[int, int] | None = None
    cgroup: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class RunningProcess:
    """One backend's processes.

    Attributes:
        process: the supervisor.
        port: None: a former version of this drone chose it.
        output: path of the file that the processes append their output to.
        environments: finds processes by their environment.
        relay: the relay to its network namespace, if it has one.
        ended: set once nothing of the backend runs any more.
        tasks: cancelled once the backend has ended, or is left to the drone's next process.
    """

    backend_id: str
    process: ChildProcess
    port: int | None
    bubblewrap: bool
    cgroup: Cgroup | None
    memory_limit_bytes: int | None
    output: str
    environments: EnvironmentReader
    relay: ChildProcess | None = None
    cpu: CpuCounter = field(default_factory=CpuCounter)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def target(self) -> ProcessTarget:
        """Return where the processes are, for the watchdog."""
        groups = () if self.cgroup is None else tuple(map(str, self.cgroup.paths.values()))
        process = self.process
        return ProcessTarget(groups, process.pid, process.started_at, self.bubblewrap, self.output)

    def handle(self) -> Any:
        """Return the `ProcessHandle` as JSON."""
        paths = {} if self.cgroup is None else {name: str(path) for name, path in self.cgroup.paths.items()}
        relay = None if self.relay is None else (self.relay.pid, self.relay.started_at)
        process, limit = self.process, self.memory_limit_bytes
        return codec.to_builtins(ProcessHandle(process.pid, process.started_at, self.bubblewrap, limit, relay, paths))

    def usage(self) -> ResourceUsage:
        """Return the resource usage of all processes.

        Raises:
            OSError, ValueError: the backend has just ended.
        """
        return self.cgroup.usage() if self.cgroup else process_usage(descendants(self.process.pid))

    def known_processes(self) -> list[int]:
        """Return the ids of the processes found by descent and by control group. Blocks for a moment."""
        known = descendants(self.process.pid)
        if self.cgroup is not None:
            known += [pid for path in self.cgroup.paths.values() for pid in members(path)]
        return known

    def owns(self, pid: int) -> bool:
        """Return whether a process that is not among the known ones belongs to the backend.

        In bubblewrap all processes are descendants. Others may leave their parent, but not a control group. Only
        without either does the environment identify them.
        """
        return self.cgroup is None and not self.bubblewrap and is_marked(pid, self.backend_id, self.environments)

    def start_stop(self, grace_s: float) -> None:
        """Begin to stop the backend: SIGTERM now, SIGKILL after the grace period."""
        self.tasks.append(asyncio.create_task(self._stop(grace_s)))

    async def _stop(self, grace_s: float) -> None:
        try:
            await self._stop_softly(grace_s)
        except Exception as error:
            # Whatever it was: a backend that is to end ends.
            log.error("backend cannot be stopped softly; killing it", backend=self.backend_id, exc_info=error)
        self.kill()

    async def _stop_softly(self, grace_s: float) -> None:
        """Send SIGTERM, and return after the grace period. This task is cancelled when the backend has ended."""
        clock = asyncio.get_running_loop().time
        began = clock()
        end = began + grace_s
        stop = SoftStop(self.target())
        if not await asyncio.to_thread(stop.begin):
            # The command has not been started yet, or the supervisor has ended.
            return
        has_ended = False
        with any_exit(stop.signalled) as exited:
            while (now := clock()) < end:
                # Processes may have been started later, so poll too, less and less often.
                wait_s = min(max(STOP_POLL_INTERVAL_S, (now - began) / 10), LONGEST_STOP_POLL_INTERVAL_S, end - now)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await exited.wait()
                exited.clear()
                has_ended = has_ended or await asyncio.to_thread(stop.has_ended)
        log.warning("process did not stop within the grace period; killing it", backend=self.backend_id)

    def kill(self) -> None:
        """SIGKILL all processes but the supervisor, which reports how the command ended. Return at once."""
        process = self.process
        if not self.bubblewrap:
            self.tasks.append(asyncio.create_task(self._kill_members()))
        # The init of the namespace, with whose end the kernel kills all processes in it.
        elif signal_descendant(process.pid, process.started_at, depth=1, number=signal.SIGKILL):
            # If somebody has stopped (SIGSTOP) it, it would never report the end.
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(signal.SIGKILL)

    async def _kill_members(self) -> None:
        # Repeated: a supervisor that has just been started may be about to start its command.
        while not self.ended.is_set():
            try:
                await self._kill_present_members()
            except Exception as error:
                log.error("processes not killed; trying again", backend=self.backend_id, exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_INTERVAL_S):
                    await self.ended.wait()

    async def _kill_present_members(self) -> None:
        spare = [self.process.pid]
        # A soft stop may have stopped (SIGSTOP) the supervisor.
        continue_supervisor(self.target())
        if self.cgroup is not None:
            await asyncio.to_thread(self.cgroup.kill_all, spare)
        await asyncio.to_thread(kill_marked, self.backend_id, reader=self.environments, spare=spare)

    def mark_ended(self) -> None:
        """Record that nothing runs any more, and cancel all tasks but the calling one."""
        self.ended.set()
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def detach(self) -> None:
        """Leave the processes to the drone's next process."""
        for task in self.tasks:
            task.cancel()
        self.process.detach()
        if self.relay is not None:
            self.relay.detach()


def cgroup_of(handle: ProcessHandle) -> Cgroup | None:
    """Return the control group that a stored handle names."""
    return Cgroup({name: Path(path) for name, path in handle.cgroup.items()}) if handle.cgroup else None
