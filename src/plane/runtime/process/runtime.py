"""The runtime that executes backends as plain processes, where no Docker engine is available.

Each backend is a session of its own, in bubblewrap where that works: files of the machine are read-only, and none of
its descendants survives it. Without bubblewrap, descendants are found by their control group where the drone may create
one; otherwise a subreaper adopts processes that leave their parent. The variable SESSION_BACKEND_ID in their
environment shows which backend they belong to. The executable is `plane.protocol.spawn.ProcessExecutable`.

This file owns the running backends, their ports and their exits; `process.start` starts them and
`process.running_process` stops and kills them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from plane import timing
from plane.decisions.backends.isolation_hints import isolation_hint
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.backends.resource_usage import process_metrics
from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.logs import LogPage
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, SpawnRequest, check_deadline
from plane.runtime.exit_message import exit_message
from plane.runtime.host_usage import host_cpu_ns, host_memory_bytes
from plane.runtime.in_flight_starts import InFlightStarts
from plane.runtime.kill_target import ProcessTarget
from plane.runtime.logs.collector import LogCollector
from plane.runtime.logs.disk_thread import DiskThread
from plane.runtime.network.listeners import foreign_listener
from plane.runtime.network.ports import Ports, port_range_of_machine
from plane.runtime.process.backend_user import UserIds
from plane.runtime.process.cgroups import Cgroup, Cgroups
from plane.runtime.process.child_process import ChildProcess, read_exit_status, read_port
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.homes import PRIVATE_HOME, remove_home
from plane.runtime.process.procfs import kill_marked, marked_backends, marked_ports
from plane.runtime.process.running_process import ProcessHandle, RunningProcess, cgroup_of
from plane.runtime.process.start import ProcessStarter, ResolvedExecutable, status_file
from plane.runtime.process.visible_files import PRIVATE
from plane.runtime.readiness import wait_until_ready
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["ProcessRuntime"]

# A killed process may have to wait for its disk before it ends.
KILL_TIMEOUT_S = 10.0
# A relay ends with its backend. One that ends longer than this before the backend has failed.
RELAY_EXIT_MARGIN_S = 1.0

log = structlog.get_logger("plane.runtime")


class ProcessRuntime:
    """Executes backends as processes of this machine.

    Args:
        logs: collects the output and owns the folders of the backends.
        bubblewrap: whether it works here; see `plane.runtime.process.bubblewrap.bubblewrap_works`.
        cgroups: creates control groups; None: the drone may not create any.
        identity: names the drone. Its processes carry it in their environment, by which orphans are found.
        mount_base: the folder below which mounts are; None: nothing is mounted.
        exposed: folders that bubblewrap shows although they are below a private one, such as /tmp.
        hidden: files and folders that bubblewrap hides.
        user: the user of backends whose executable names none; None: the drone's user.
        ip: the address where relays to backends with a network of their own listen; None: all addresses.
        ports: range of the ports of backends; None: the machine's default.
        grace_s: from SIGTERM to SIGKILL.
        startup_timeout_s: how long a backend may take to become ready.
    """

    name = "process"

    def __init__(
        self,
        logs: LogCollector,
        *,
        bubblewrap: bool,
        cgroups: Cgroups | None = None,
        identity: str = "",
        mount_base: Path | None = None,
        exposed: tuple[Path, ...] = (),
        hidden: tuple[Path, ...] = (),
        user: UserIds | None = None,
        ip: str | None = None,
        ports: PortRange | None = None,
        grace_s: float = SOFT_TERMINATE_GRACE_S,
        startup_timeout_s: float = STARTUP_TIMEOUT_S,
    ) -> None:
        self._listener: RuntimeListener
        self._logs = logs
        self._environments = EnvironmentReader()
        self._starter = ProcessStarter(
            logs,
            bubblewrap=bubblewrap,
            cgroups=cgroups,
            identity=identity,
            environments=self._environments,
            mount_base=mount_base,
            exposed=exposed,
            hidden=hidden,
            user=user,
            ip=ip,
        )
        # A large home takes time, for which output does not wait.
        self._homes = DiskThread()
        self._cgroups = cgroups
        self._identity = identity
        self._user = user
        self._grace_s = grace_s
        self._startup_timeout_s = startup_timeout_s
        self._running: dict[str, RunningProcess] = {}
        self._starting = InFlightStarts()
        self._ports = Ports(ports or port_range_of_machine())
        for folder, ended_s_ago in logs.folders():
            if ended_s_ago < timing.PORT_QUARANTINE_S and (port := read_port(status_file(folder))) is not None:
                self._ports.release(port, ended_s_ago)

    async def start(self, listener: RuntimeListener) -> None:
        """Report to ``listener`` from now on; see `plane.runtime.base.Runtime.start`."""
        self._listener = listener

    async def prepare(self, executable: Any) -> ResolvedExecutable:
        """Check the executable: its shape, its limits, and that its command, folder and user exist."""
        return await self._starter.resolve(executable)

    async def spawn(self, request: SpawnRequest) -> int:
        """Start the process; see `plane.runtime.base.Runtime.spawn`."""
        resolved = await self._starter.resolve(request.executable)
        return await self._starting.run(request.backend_id, self._start(request, resolved))

    def extend_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Do nothing: the drone's watchdog enforces the deadlines of processes."""

    async def _start(self, request: SpawnRequest, resolved: ResolvedExecutable) -> int:
        check_deadline(request.hard_deadline_ns)
        try:
            port, held = self._ports.allocate()
        except OSError as error:
            raise BackendFailed(f"no port can be allocated: {error}") from error
        try:
            self._supervise(await self._starter.start(request, resolved, port, held, self._listener.on_location))
        except BaseException:
            self._ports.release(port)
            await self._remove_home(request.backend_id)
            raise
        return port

    def _supervise(self, running: RunningProcess) -> None:
        backend_id = running.backend_id
        self._running[backend_id] = running
        self._listener.on_location(backend_id, running.target())
        self._logs.follow(backend_id)
        running.tasks.append(asyncio.create_task(self._report_exit(running)))
        if running.relay is not None:
            running.tasks.append(asyncio.create_task(self._kill_without_relay(running, running.relay)))

    async def _kill_without_relay(self, running: RunningProcess, relay: ChildProcess) -> None:
        """Kill a backend that can no longer be reached."""
        await relay.wait()
        try:
            async with asyncio.timeout(RELAY_EXIT_MARGIN_S):
                await running.process.wait()
        except TimeoutError:
            log.error("network relay ended; killing its backend", backend=running.backend_id)
            running.kill()

    def handle(self, backend_id: str) -> Any:
        """Return where the supervisor, relay and control group are; see `plane.runtime.base.Runtime.handle`."""
        running = self._running.get(backend_id)
        return None if running is None else running.handle()

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Find the process again; see `plane.runtime.base.Runtime.adopt`."""
        try:
            known = codec.convert(handle, ProcessHandle)
        except MessageError:
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False)
        groups = tuple(known.cgroup.values())
        target = ProcessTarget(groups, known.pid, known.started_at, known.bubblewrap)
        self._listener.on_location(backend_id, target)
        cgroup = cgroup_of(known)
        status = status_file(self._logs.ensure_folder(backend_id))
        process = ChildProcess.adopt(known.pid, known.started_at, status)
        port = read_port(status)
        output = self._logs.capture_file(backend_id)
        has_output = output.exists()
        if process is not None and has_output:
            relay = None if known.relay is None else ChildProcess.adopt(*known.relay, status)
            limit = known.memory_limit_bytes
            running = RunningProcess(
                backend_id, process, port, known.bubblewrap, cgroup, limit, str(output), self._environments, relay
            )
            if port is not None:
                self._ports.adopt(port)
            self._supervise(running)
            if known.relay is not None and relay is None:
                log.error("network relay ended; killing its backend", backend=backend_id)
                running.kill()
            return AdoptionResult(running=True)
        if process is not None:
            process.detach()
        out_of_memory = await self._clean_up(backend_id, cgroup)
        if port is not None:
            self._ports.release(port)
        exit_code = _exit_code(read_exit_status(status))
        if has_output:
            self._logs.follow(backend_id)
        message = await self._exit_message(backend_id, exit_code, out_of_memory, isolated=known.bubblewrap)
        return AdoptionResult(running=False, exit_code=exit_code, message=message)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once the backend is ready; see `plane.runtime.base.Runtime.wait_for_backend`."""

        async def foreign() -> str | None:
            return await asyncio.to_thread(self._foreign_listener, backend_id, port)

        await wait_until_ready(host, port, self._startup_timeout_s, foreign)

    def _foreign_listener(self, backend_id: str, port: int) -> str | None:
        """Return which process that does not belong to the backend listens on its port."""
        running = self._running.get(backend_id)
        if running is None or running.relay is not None:
            # The listening socket of a relay comes from the drone.
            return None
        return foreign_listener(port, running.known_processes(), running.owns)

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Terminate the processes; see `plane.runtime.base.Runtime.terminate`."""
        await self._starting.wait(backend_id)
        running = self._running.get(backend_id)
        if running is None:
            return False
        if hard:
            running.kill()
        else:
            running.start_stop(self._grace_s)
        return True

    async def _report_exit(self, running: RunningProcess) -> None:
        """Wait for the supervisor's exit, kill what is left, and report the exit."""
        exit_code = _exit_code(await running.process.wait())
        backend_id, out_of_memory = running.backend_id, False
        try:
            out_of_memory = await self._clean_up(backend_id, running.cgroup)
        except BackendFailed as error:
            # The exit is reported all the same; nothing else would report it.
            log.error("remaining processes of an ended backend not killed", backend=backend_id, error=str(error))
        message = await self._exit_message(backend_id, exit_code, out_of_memory, isolated=running.bubblewrap)
        del self._running[backend_id]
        if running.port is not None:
            self._ports.release(running.port)
        running.mark_ended()
        log.info("process ended", backend=backend_id, exit_code=exit_code)
        self._listener.on_exit(backend_id, exit_code, message)

    async def _exit_message(
        self, backend_id: str, exit_code: int | None, out_of_memory: bool, *, isolated: bool
    ) -> str | None:
        """Finish the collection of output. Return the message about the exit; None for a clean one."""
        output = await self._logs.finish(backend_id)
        if exit_code == 0:
            return None
        if exit_code is None:
            cause = "ended with an unknown exit code"
        else:
            cause = f"ended by signal {exit_code - 128}" if exit_code > 128 else f"exited with code {exit_code}"
        own, masked = (PRIVATE, await self._starter.masked_folders()) if isolated else ((), ())
        hint = isolation_hint(output, own, masked, PRIVATE_HOME, drops_user=self._user is not None)
        return exit_message(cause, output, out_of_memory=out_of_memory, details=(hint,))

    async def _clean_up(self, backend_id: str, cgroup: Cgroup | None) -> bool:
        """Kill what is left of a backend whose supervisor has ended. Return whether it ran out of memory.

        Raises:
            BackendFailed: processes may be left.
        """
        out_of_memory = False
        try:
            if cgroup is not None:
                await asyncio.to_thread(cgroup.kill_all)
                out_of_memory = cgroup.ran_out_of_memory()
            await asyncio.to_thread(kill_marked, backend_id, reader=self._environments)
        except OSError as error:
            raise BackendFailed(f"processes of the backend cannot be found: {error}") from error
        if cgroup is not None:
            await asyncio.to_thread(cgroup.remove)
        await self._remove_home(backend_id)
        return out_of_memory

    async def _remove_home(self, backend_id: str) -> None:
        """Remove the home of a backend that has ended or could not start. If the disk hangs, it is removed later."""
        with suppress(TimeoutError):
            await self._homes.run_in_time(partial(remove_home, self._logs.folder_path(backend_id)))

    async def remove_orphan(self, backend_id: str) -> None:
        """Kill all processes in the backend's control group or with its id in their environment.

        Raises:
            BackendFailed: processes may be left.
        """
        cgroup = None if self._cgroups is None else self._cgroups.group_of(backend_id)
        port = read_port(status_file(self._logs.folder_path(backend_id)))
        # If the orphan's files are lost, its processes know its port. Proxies may still route to that port.
        ports = set() if port is None else {port}
        if port is None:
            with suppress(OSError):
                ports = await asyncio.to_thread(marked_ports, backend_id, self._environments)
        await self._clean_up(backend_id, cgroup)
        for port in ports:
            if not self._ports.is_in_use(port):
                self._ports.release(port)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Kill the processes that carry this drone's identity; see `plane.runtime.base.Runtime.remove_orphans`."""
        if not self._identity:
            return []
        try:
            found = await asyncio.to_thread(marked_backends, self._identity, self._environments)
        except OSError as error:
            raise BackendFailed(f"processes of former backends not found: {error}") from error
        orphans = found - set(known)
        for backend_id in orphans:
            await self.remove_orphan(backend_id)
        return sorted(orphans)

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Return a page of output; see `plane.runtime.base.Runtime.read_logs`."""
        return await self._logs.read(backend_id, after, tail, wait_s)

    async def run(self) -> None:
        """Collect output and measure until cancelled."""
        collecting = asyncio.create_task(self._logs.run())
        try:
            while not collecting.done():
                await asyncio.wait([collecting], timeout=timing.METRICS_INTERVAL_S)
                try:
                    await self._measure()
                except (OSError, ValueError) as error:
                    log.warning("backends not measured", error=str(error))
            collecting.result()
        finally:
            collecting.cancel()
            await asyncio.wait([collecting])

    async def _measure(self) -> None:
        self._ports.expire()
        cpu_ns, memory_bytes = host_cpu_ns(), host_memory_bytes()
        for backend_id, running in list(self._running.items()):
            if running.ended.is_set():
                continue
            try:
                usage = running.usage()
            except (OSError, ValueError):
                # It has just ended.
                continue
            metrics = process_metrics(
                backend_id,
                usage.memory_bytes,
                usage.memory_stat,
                running.memory_limit_bytes or memory_bytes,
                running.cpu.delta(usage.cpu_ns, cpu_ns),
            )
            if metrics is not None:
                self._listener.on_metrics(metrics)
            # A thousand backends must not delay other tasks.
            await asyncio.sleep(0)

    async def close(self, *, leave_running: bool) -> None:
        """Kill the backends, or leave them to the drone's next process."""
        await self._starting.wait_all()
        killed = []
        for running in self._running.values():
            if leave_running:
                running.detach()
            else:
                running.kill()
                killed.append(running)
        try:
            async with asyncio.timeout(KILL_TIMEOUT_S):
                for running in killed:
                    await running.ended.wait()
        except TimeoutError:
            left = [running.backend_id for running in killed if not running.ended.is_set()]
            log.error("killed processes do not end", backends=left)
        self._ports.close()
        self._logs.close()
        self._homes.close()


def _exit_code(status: int | None) -> int | None:
    """Return the exit code for the status of a child process, where -n means signal n; None if it is unknown."""
    return 128 - status if status is not None and status < 0 else status
