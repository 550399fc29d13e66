"""Backends as plain processes: the runtime where no Docker engine answers.

Each backend is a session of its own, in bubblewrap where that works: files of the machine are read-only, and none of
its descendants survives it. Without bubblewrap, descendants are found by their control group where those can be made;
else their supervisor collects what leaves its parent. The variable SESSION_BACKEND_ID in their environment tells whose
they are. The executable is `plane.protocol.spawn.ProcessExecutable`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from plane import timing
from plane.decisions.backends.isolation_hints import isolation_hint
from plane.decisions.backends.port_selection import PortRange
from plane.decisions.backends.resource_usage import CpuCounter, process_metrics
from plane.fd_limit import inherited_fd_limit
from plane.protocol import codec
from plane.protocol.backend_state import OUTPUT_MARKER
from plane.protocol.errors import MessageError
from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage
from plane.protocol.spawn import Network, ProcessExecutable, ResourceLimits
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, check_deadline, session_environment
from plane.runtime.host_usage import host_cpu_ns, host_memory_bytes, process_usage
from plane.runtime.in_flight_starts import Starts
from plane.runtime.kill_target import ProcessTarget
from plane.runtime.logs.collector import LogCollector
from plane.runtime.logs.output_capture import open_for_output
from plane.runtime.mounts import open_mount
from plane.runtime.network.listeners import foreign_listener
from plane.runtime.network.ports import Ports, listening_socket, port_range_of_machine
from plane.runtime.network.relays import start_relay
from plane.runtime.process import subreaper
from plane.runtime.process.backend_user import UserIds, may_drop_bounding_set, user_ids
from plane.runtime.process.cgroups import Cgroup, Cgroups
from plane.runtime.process.child_process import ChildProcess, any_exit, read_exit_status, read_port, write_port
from plane.runtime.process.environment import check_sizes, open_environment
from plane.runtime.process.executable import is_isolated, read_executable, resolve_command
from plane.runtime.process.handle import ProcessHandle
from plane.runtime.process.homes import PRIVATE_HOME, home_variables, make_home, remove_home
from plane.runtime.process.launch import BubblewrapPlan, LaunchPlan, command_line, supervisor_environment
from plane.runtime.process.procfs import (
    DRONE_MARK,
    descendants,
    is_marked,
    kill_marked,
    marked_backends,
    marked_ports,
    members,
    signal_descendant,
)
from plane.runtime.process.soft_stop import SoftStop, continue_supervisor
from plane.runtime.process.visible_files import PRIVATE, FileView, view_of
from plane.runtime.readiness import wait_until_ready
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["ProcessRuntime", "bubblewrap_works"]

PROBE_LIMIT_S = 5.0
# A process that is killed may have to wait for its disk first.
KILL_LIMIT_S = 10.0
KILL_AGAIN_S = 0.5
# Between looks at what is left of a backend that was asked to stop.
STOP_POLL_S = 0.05
LONGEST_STOP_POLL_S = 0.5
# A relay ends with its backend; one that ends so long before has failed.
RELAY_ALONE_S = 1.0
# What of the drone's environment a backend gets; everything else may be secret.
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")

# Looked for in the drone's own PATH; a name that is not found is reported when it is first started.
BWRAP, SETPRIV = (shutil.which(name) or name for name in ("bwrap", "setpriv"))

SUBREAPER = (sys.executable, "-I", "-S", subreaper.__file__)

log = structlog.get_logger("plane.runtime")


@dataclass(slots=True)
class _Running:
    """One backend's process; ``ended`` is set once nothing of it runs any more."""

    process: ChildProcess
    # None: a former version of this drone chose it.
    port: int | None
    bubblewrap: bool
    cgroup: Cgroup | None
    memory_limit_bytes: int | None
    # To its network namespace, if it has one; see `plane.runtime.network.relay_program`.
    relay: ChildProcess | None = None
    cpu: CpuCounter = field(default_factory=CpuCounter)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


async def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed and may make namespaces here."""
    status = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        plan = BubblewrapPlan(program=BWRAP, status=status, root=_root_entries(), cwd="/", is_root=os.geteuid() == 0)
        command = command_line(LaunchPlan(command=["true"], setpriv=SETPRIV, bubblewrap=plan))
        probe = await asyncio.create_subprocess_exec(
            *command,
            env=supervisor_environment(os.environ, {}),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            pass_fds=(status,),
        )
    except FileNotFoundError:
        return False
    finally:
        os.close(status)
    try:
        async with asyncio.timeout(PROBE_LIMIT_S):
            return await probe.wait() == 0
    except TimeoutError:
        probe.kill()
        await probe.wait()
        return False


class ProcessRuntime:
    """Runs backends as processes of this machine.

    Args:
        listener: told of each exit, and what is used.
        logs: keeps the output.
        bubblewrap: whether it works here; see `bubblewrap_works`.
        cgroups: where control groups can be made, if they can.
        identity: names the drone; its processes carry it in their environment, so that it finds orphans.
        mount_base: the folder below which mounts are; None: none is done.
        exposed, hidden: folders that bubblewrap shows although they are below a private one, such as /tmp; files and
            folders that it hides.
        user: that backends run as which name none; None: the drone's own.
        ip: where relays to backends with a network of their own listen; None: at all addresses.
        ports: where backends listen; None: the machine's default.
        grace_s: from SIGTERM to SIGKILL.
        startup_limit_s: until a backend must answer HTTP.
    """

    name = "process"

    def __init__(
        self,
        listener: RuntimeListener,
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
        startup_limit_s: float = STARTUP_TIMEOUT_S,
    ) -> None:
        self._listener = listener
        self._logs = logs
        self._bubblewrap = bubblewrap
        self._cgroups = cgroups
        self._identity = identity
        self._mount_base = mount_base
        self._exposed = exposed
        self._hidden = hidden
        self._user = user
        self._empties_bounding_set = may_drop_bounding_set()
        self._ip = ip
        self._grace_s = grace_s
        self._startup_limit_s = startup_limit_s
        self._running: dict[str, _Running] = {}
        self._starting = Starts()
        self._ports = Ports(ports or port_range_of_machine())
        for folder, ended_s_ago in logs.folders():
            if ended_s_ago < timing.PORT_QUARANTINE_S and (port := read_port(folder / "status")) is not None:
                self._ports.release(port, ended_s_ago)

    async def prepare(self, executable: Any) -> None:
        """Check the executable: its shape, its limits, and that its command, folder and user are there."""
        self._found(self._wanted(executable))

    def _found(self, wanted: ProcessExecutable) -> tuple[list[str], UserIds | None, FileView | None]:
        """Return the argv with the program's path, the user, and what it sees of the machine's files if isolated.

        Raises:
            BackendFailed
        """
        user = user_ids(wanted.user, self._user)
        isolated = is_isolated(wanted, bubblewrap=self._bubblewrap)
        view = view_of(self._exposed, self._hidden, user) if isolated else None
        return resolve_command(wanted, user, view), user, view

    async def spawn(
        self,
        backend_id: str,
        executable: Any,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None = None,
    ) -> int:
        """Start the process; see `plane.runtime.base.Runtime.spawn`."""
        wanted = self._wanted(executable)
        start = self._start(backend_id, wanted, key, static_token, not_after_ns)
        return await self._starting.run(backend_id, start)

    def extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """The drone's watchdog knows; see `plane.runtime.base.Runtime.extend`."""

    async def _start(
        self,
        backend_id: str,
        wanted: ProcessExecutable,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None,
    ) -> int:
        check_deadline(not_after_ns)
        try:
            port, held = self._ports.draw()
        except OSError as error:
            raise BackendFailed(f"no port can be held for it: {error}") from error
        try:
            await self._start_at(port, held, backend_id, wanted, key, static_token, not_after_ns)
        except BaseException:
            self._ports.release(port)
            remove_home(self._logs.folder_path(backend_id))
            raise
        return port

    async def _start_at(
        self,
        port: int,
        held: int,
        backend_id: str,
        wanted: ProcessExecutable,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None,
    ) -> None:
        command, user, view = self._found(wanted)
        bubblewrap = view is not None
        mount = open_mount(self._mount_base, wanted.mount, key, None if user is None else user.uid)
        cgroup = None
        descriptors = [] if mount is None else [mount]
        try:
            folder = self._logs.ensure_folder(backend_id)
            home = PRIVATE_HOME if bubblewrap else make_home(folder, backend_id, user)
            environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
            environment |= home_variables(home, wanted.env) | wanted.env
            environment |= session_environment(backend_id, port, key, static_token)
            environment[DRONE_MARK] = self._identity
            check_sizes(command, environment)
            listener = None
            if wanted.network is Network.NONE:
                listener = listening_socket(self._ip, port)
                descriptors.append(listener)
            variables = open_environment(environment)
            descriptors.append(variables)
            if self._cgroups is not None:
                cgroup = self._cgroups.create(backend_id, wanted.resource_limits)
            status_file = self._status_file(backend_id)
            status_file.unlink(missing_ok=True)
            status = os.open(status_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            write_port(status, port)
            spool = self._logs.capture_file(backend_id)
            output = open_for_output(spool, None if user is None else user.uid)
            descriptors += [status, output]
            plan = LaunchPlan(
                command=command,
                setpriv=SETPRIV,
                user=user,
                empties_bounding_set=self._empties_bounding_set,
                enter=[] if cgroup is None else cgroup.member_files,
                limits=_rlimits(wanted.resource_limits, in_cgroup=cgroup is not None),
                open_files=inherited_fd_limit(),
                bubblewrap=None if view is None else _bubblewrap_plan(wanted, status, mount, held, view),
                reaper=() if bubblewrap or cgroup is not None else SUBREAPER,
                status_file=str(status_file),
                not_after_s=None if not_after_ns is None else not_after_ns // 1_000_000_000,
                sets_environment=True,
            )
            groups = () if cgroup is None else tuple(map(str, cgroup.paths.values()))
            self._listener.located(backend_id, ProcessTarget(groups, bubblewrap=bubblewrap, output=str(spool)))
            inherited = [held] if not bubblewrap else [held, status] if mount is None else [held, status, mount]
            process = ChildProcess.start(
                command_line(plan),
                env=supervisor_environment(os.environ, environment),
                stdin=variables,
                output=output,
                inherited=inherited,
                cwd="/" if bubblewrap else wanted.cwd or "/",
            )
            relay = None if listener is None else _start_relay(listener, port, process, environment)
        except (OSError, ValueError) as error:
            if cgroup is not None:
                await asyncio.to_thread(cgroup.remove)
            raise BackendFailed(f"executable.command: {wanted.command[0]!r} cannot be started: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        limit = wanted.resource_limits.memory_limit_bytes
        self._watch_over(backend_id, _Running(process, port, bubblewrap, cgroup, limit, relay))
        log.info("process started", backend=backend_id, pid=process.pid, port=port)

    def _target(self, backend_id: str, running: _Running) -> ProcessTarget:
        process, groups = running.process, running.cgroup.paths.values() if running.cgroup else ()
        return ProcessTarget(
            groups=tuple(map(str, groups)),
            pid=process.pid,
            started_at=process.started_at,
            bubblewrap=running.bubblewrap,
            output=str(self._logs.capture_file(backend_id)),
        )

    def _watch_over(self, backend_id: str, running: _Running) -> None:
        self._running[backend_id] = running
        self._listener.located(backend_id, self._target(backend_id, running))
        self._logs.follow(backend_id)
        running.tasks.append(asyncio.create_task(self._watch(backend_id, running)))
        if running.relay is not None:
            running.tasks.append(asyncio.create_task(self._end_with_relay(backend_id, running, running.relay)))

    async def _end_with_relay(self, backend_id: str, running: _Running, relay: ChildProcess) -> None:
        """Kill a backend that nobody can reach any more."""
        await relay.wait()
        try:
            async with asyncio.timeout(RELAY_ALONE_S):
                await running.process.wait()
        except TimeoutError:
            log.error("network relay ended; its backend is killed", backend=backend_id)
            self._kill(backend_id, running)

    def _status_file(self, backend_id: str) -> Path:
        return self._logs.ensure_folder(backend_id) / "status"

    def _wanted(self, executable: Any) -> ProcessExecutable:
        return read_executable(
            executable,
            bubblewrap=self._bubblewrap,
            shares_of_cpu=self._cgroups is not None,
            mounts=self._mount_base is not None,
        )

    def handle(self, backend_id: str) -> Any:
        """The process's id and start, and its control group; see `plane.runtime.base.Runtime.handle`."""
        running = self._running.get(backend_id)
        if running is None:
            return None
        paths = {} if running.cgroup is None else {name: str(path) for name, path in running.cgroup.paths.items()}
        process = running.process
        relay = None if running.relay is None else (running.relay.pid, running.relay.started_at)
        limit = running.memory_limit_bytes
        return codec.to_builtins(
            ProcessHandle(process.pid, process.started_at, running.bubblewrap, limit, relay, paths)
        )

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Find the process again; see `plane.runtime.base.Runtime.adopt`."""
        try:
            known = codec.convert(handle, ProcessHandle)
        except MessageError:
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False)
        groups = tuple(known.cgroup.values())
        self._listener.located(backend_id, ProcessTarget(groups, known.pid, known.started_at, known.bubblewrap))
        cgroup = Cgroup({name: Path(path) for name, path in known.cgroup.items()}) if known.cgroup else None
        status_file = self._status_file(backend_id)
        process = ChildProcess.adopt(known.pid, known.started_at, status_file)
        port = read_port(status_file)
        spooled = self._logs.capture_file(backend_id).exists()
        if process is not None and spooled:
            relay = None if known.relay is None else ChildProcess.adopt(*known.relay, status_file)
            running = _Running(process, port, known.bubblewrap, cgroup, known.memory_limit_bytes, relay)
            if port is not None:
                self._ports.adopt(port)
            self._watch_over(backend_id, running)
            if known.relay is not None and relay is None:
                log.error("network relay ended; its backend is killed", backend=backend_id)
                self._kill(backend_id, running)
            return AdoptionResult(running=True)
        if process is not None:
            process.detach()
        out_of_memory = await self._clear_up(backend_id, cgroup)
        if port is not None:
            self._ports.release(port)
        status = read_exit_status(status_file)
        code = None if status is None else _exit_code(status)
        if spooled:
            self._logs.follow(backend_id)
        output = self._logs.finish(backend_id)
        message = _message(code, output, out_of_memory, self._hint(output, isolated=known.bubblewrap))
        return AdoptionResult(running=False, exit_code=code, message=message)

    def _hint(self, output: str, *, isolated: bool) -> str | None:
        """See `plane.decisions.backends.isolation_hints`."""
        own, masked = (PRIVATE, view_of(self._exposed, (), self._user).masked) if isolated else ((), ())
        return isolation_hint(output, own, masked, PRIVATE_HOME, drops_user=self._user is not None)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once it answers; see `plane.runtime.base.Runtime.wait_for_backend`."""

        async def foreign() -> str | None:
            return await asyncio.to_thread(self._foreign_listener, backend_id, port)

        await wait_until_ready(host, port, self._startup_limit_s, foreign)

    def _foreign_listener(self, backend_id: str, port: int) -> str | None:
        """Which process that is not the backend's listens on its port."""
        running = self._running.get(backend_id)
        if running is None or running.relay is not None:
            # Who has a relay has its port from the drone.
            return None
        # Bubblewrap's processes are all descendants. Others may leave their parents, but no control group; only without
        # one is there nothing but their environment to know them by.
        known = descendants(running.process.pid)
        if running.cgroup is not None:
            known += [pid for path in running.cgroup.paths.values() for pid in members(path)]
        by_environment = running.cgroup is None and not running.bubblewrap
        return foreign_listener(port, known, lambda pid: by_environment and is_marked(pid, backend_id))

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """End the process; see `plane.runtime.base.Runtime.terminate`."""
        await self._starting.over(backend_id)
        running = self._running.get(backend_id)
        if running is None:
            return False
        if hard:
            self._kill(backend_id, running)
        else:
            running.tasks.append(asyncio.create_task(self._stop_within_grace(backend_id, running)))
        return True

    async def _stop_within_grace(self, backend_id: str, running: _Running) -> None:
        """Send SIGTERM to all of it (`soft_stop`), and SIGKILL to what is left after the grace."""
        clock = asyncio.get_running_loop().time
        began = clock()
        end = began + self._grace_s
        stop = SoftStop(self._target(backend_id, running))
        if not await asyncio.to_thread(stop.begin):
            # There is no command yet, or no supervisor any more.
            self._kill(backend_id, running)
            return
        has_ended = False
        # Cancelled when the backend has ended.
        with any_exit(stop.asked) as exited:
            while (now := clock()) < end:
                # Some may have been started later: looked for ever less often.
                wait_s = min(max(STOP_POLL_S, (now - began) / 10), LONGEST_STOP_POLL_S, end - now)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await exited.wait()
                exited.clear()
                has_ended = has_ended or await asyncio.to_thread(stop.has_ended)
        log.warning("process did not end within the grace; it is killed", backend=backend_id)
        self._kill(backend_id, running)

    def _kill(self, backend_id: str, running: _Running) -> None:
        """SIGKILL for all but the supervisor, which reports how the command ended."""
        process = running.process
        if running.bubblewrap:
            # Its namespace's init, which ends all in it.
            if not signal_descendant(process.pid, process.started_at, depth=1, number=signal.SIGKILL):
                process.send_signal(signal.SIGKILL)
        else:
            running.tasks.append(asyncio.create_task(self._kill_members(backend_id, running)))

    async def _kill_members(self, backend_id: str, running: _Running) -> None:
        spare = [running.process.pid]
        # Again and again: a supervisor that has just been started may be about to start its command.
        while not running.ended.is_set():
            # A soft end may have stopped it.
            continue_supervisor(self._target(backend_id, running))
            if running.cgroup is not None:
                await asyncio.to_thread(running.cgroup.kill_all, spare)
            await asyncio.to_thread(kill_marked, backend_id, spare=spare)
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_AGAIN_S):
                    await running.ended.wait()

    async def _watch(self, backend_id: str, running: _Running) -> None:
        """Wait for the exit, end what is left, and tell."""
        status = await running.process.wait()
        out_of_memory = False
        try:
            out_of_memory = await self._clear_up(backend_id, running.cgroup)
        except OSError as error:
            # Told of all the same: nobody else would.
            log.error("what is left of a backend cannot be ended", backend=backend_id, error=str(error))
        del self._running[backend_id]
        if running.port is not None:
            self._ports.release(running.port)
        output = self._logs.finish(backend_id)
        running.ended.set()
        for task in running.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        code = None if status is None else _exit_code(status)
        message = _message(code, output, out_of_memory, self._hint(output, isolated=running.bubblewrap))
        log.info("process ended", backend=backend_id, exit_code=code)
        self._listener.exited(backend_id, code, message)

    async def _clear_up(self, backend_id: str, cgroup: Cgroup | None) -> bool:
        """Kill what is left of a backend whose supervisor has ended. True: it had run out of memory."""
        out_of_memory = False
        if cgroup is not None:
            await asyncio.to_thread(cgroup.kill_all)
            out_of_memory = cgroup.ran_out_of_memory()
        await asyncio.to_thread(kill_marked, backend_id)
        if cgroup is not None:
            await asyncio.to_thread(cgroup.remove)
        await asyncio.to_thread(remove_home, self._logs.folder_path(backend_id))
        return out_of_memory

    async def remove_orphan(self, backend_id: str) -> None:
        """Kill whatever is in the backend's control group or carries its id in its environment."""
        cgroup = None if self._cgroups is None else self._cgroups.group_of(backend_id)
        port = read_port(self._logs.folder_path(backend_id) / "status")
        # Of an orphan whose files are lost, as its process knows it: its row may say that it is ready there.
        ports = await asyncio.to_thread(marked_ports, backend_id) if port is None else {port}
        await self._clear_up(backend_id, cgroup)
        for port in ports:
            if not self._ports.is_in_use(port):
                self._ports.release(port)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Kill the processes that carry this drone's identity; see `plane.runtime.base.Runtime.remove_orphans`."""
        if not self._identity:
            return []
        orphans = await asyncio.to_thread(marked_backends, self._identity) - set(known)
        for backend_id in orphans:
            await self.remove_orphan(backend_id)
        return sorted(orphans)

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """See `plane.runtime.base.Runtime.read_logs`."""
        return await self._logs.read(backend_id, after, tail, wait_s)

    async def run(self) -> None:
        """Keep the output, and measure; until cancelled."""
        keeping = asyncio.create_task(self._logs.run())
        try:
            while not keeping.done():
                await asyncio.wait([keeping], timeout=timing.METRICS_INTERVAL_S)
                try:
                    await self._measure()
                except (OSError, ValueError) as error:
                    log.warning("backends not measured", error=str(error))
            keeping.result()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _measure(self) -> None:
        self._ports.expire()
        machine_ns, memory_bytes = host_cpu_ns(), host_memory_bytes()
        for backend_id, running in list(self._running.items()):
            if running.ended.is_set():
                continue
            try:
                usage = running.cgroup.usage() if running.cgroup else process_usage(descendants(running.process.pid))
            except (OSError, ValueError):
                # It has just ended.
                continue
            metrics = process_metrics(
                backend_id,
                usage.memory_bytes,
                usage.memory,
                running.memory_limit_bytes or memory_bytes,
                running.cpu.passed(usage.cpu_ns, machine_ns),
            )
            if metrics is not None:
                self._listener.measured(metrics)
            # A thousand backends must not hold everything else up.
            await asyncio.sleep(0)

    async def close(self, *, leave_running: bool) -> None:
        """Kill what still runs, or leave it to the drone's next process."""
        await self._starting.all_over()
        killed = {}
        for backend_id, running in self._running.items():
            if leave_running:
                for task in running.tasks:
                    task.cancel()
                running.process.detach()
                if running.relay is not None:
                    running.relay.detach()
            else:
                self._kill(backend_id, running)
                killed[backend_id] = running
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                for running in killed.values():
                    await running.ended.wait()
        except TimeoutError:
            left = [backend_id for backend_id, running in killed.items() if not running.ended.is_set()]
            log.error("killed processes do not end", backends=left)
        self._ports.close()
        self._logs.close()


def _start_relay(listener: int, port: int, process: ChildProcess, environment: Mapping[str, str]) -> ChildProcess:
    """Start the relay to a backend's network. It carries the backend's marks, so whatever ends a backend ends it."""
    env = supervisor_environment(os.environ, environment)
    try:
        return start_relay(listener, port, process.pid, process.started_at, env)
    except OSError:
        process.send_signal(signal.SIGKILL)
        raise


def _bubblewrap_plan(
    wanted: ProcessExecutable, status: int, mount: int | None, held: int, view: FileView
) -> BubblewrapPlan:
    return BubblewrapPlan(
        program=BWRAP,
        status=status,
        root=_root_entries(),
        cwd=wanted.cwd or "/",
        mount=mount,
        held=held,
        files=view,
        own_network=wanted.network is Network.NONE,
        is_root=os.geteuid() == 0,
    )


def _root_entries() -> dict[str, str | None]:
    """What stands in the root folder; see `BubblewrapPlan.root`."""
    with os.scandir("/") as entries:
        return {
            entry.path: os.readlink(entry.path)  # noqa: PTH115 - a third of the time, at each start
            if entry.is_symlink()
            else (None if entry.is_dir() else "")
            for entry in entries
        }


def _rlimits(limits: ResourceLimits, *, in_cgroup: bool) -> ResourceLimits:
    """What is left to rlimits. A limit of address space breaks programs that reserve it, so it is the second choice."""
    return msgspec.structs.replace(limits, memory_limit_bytes=None) if in_cgroup else limits


def _exit_code(status: int) -> int:
    return 128 - status if status < 0 else status


def _message(code: int | None, output: str, out_of_memory: bool, hint: str | None) -> str | None:
    """What to tell people of an exit; None for a clean one."""
    if code == 0:
        return None
    how = f"exited with code {code}"
    if code is None:
        how = "ended, and nobody saw how"
    elif code > 128:
        how = f"ended by signal {code - 128}"
    if out_of_memory:
        how += " after it ran out of memory (resource_limits.memory_limit_bytes)"
    if not output:
        return f"{how}, without any output"
    return f"{how}{'' if hint is None else f' ({hint})'}{OUTPUT_MARKER}{output}"
