"""Start the processes of a backend: from its executable to a running supervisor.

`process.executable` validates, `process.launch` builds the command line; here files are opened and the process is
started. `process.runtime` chooses the port and owns the result.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from plane.fd_limit import inherited_fd_limit
from plane.protocol.spawn import Network, ProcessExecutable, ResourceLimits
from plane.runtime.base import BackendFailed, LocationCallback, SpawnRequest, session_environment
from plane.runtime.file_calls import FileCalls, FileSystemHangs
from plane.runtime.kill_target import ProcessTarget
from plane.runtime.logs.collector import LogCollector
from plane.runtime.logs.output_capture import open_for_output
from plane.runtime.mounts import Mounts
from plane.runtime.network.ports import listening_socket
from plane.runtime.network.relays import start_relay
from plane.runtime.process import subreaper
from plane.runtime.process.backend_user import UserIds, may_drop_bounding_set, user_ids
from plane.runtime.process.bubblewrap import bubblewrap_plan
from plane.runtime.process.cgroups import Cgroups
from plane.runtime.process.child_process import ChildProcess, write_port
from plane.runtime.process.environment import check_sizes, open_environment
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.executable import is_isolated, read_executable, resolve_command
from plane.runtime.process.homes import PRIVATE_HOME, home_variables, make_home
from plane.runtime.process.launch import LaunchPlan, command_line, supervisor_environment
from plane.runtime.process.procfs import DRONE_MARK
from plane.runtime.process.running_process import RunningProcess
from plane.runtime.process.visible_files import FileView, view_of

__all__ = ["ProcessStarter", "ResolvedExecutable", "status_file"]

# The part of the drone's environment that a backend receives; everything else may be secret.
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")
# Found in the drone's own PATH. If it is missing, the first start reports the name.
SETPRIV = shutil.which("setpriv") or "setpriv"
SUBREAPER = (sys.executable, "-I", "-S", subreaper.__file__)

log = structlog.get_logger("plane.runtime")


@dataclass(frozen=True, slots=True)
class ResolvedExecutable:
    """An executable that this machine can start.

    Attributes:
        command: argv, with the path of the program.
        user: ids to drop to; None: the drone's user.
        view: what an isolated backend sees of the machine's files; None: not isolated.
    """

    executable: ProcessExecutable
    command: list[str]
    user: UserIds | None
    view: FileView | None


def status_file(folder: Path) -> Path:
    """Return the file in a backend's folder that holds its port and how its command ended."""
    return folder / "status"


class ProcessStarter:
    """Starts backends of one drone.

    Args:
        logs: owns the folders of the backends.
        bubblewrap: whether it works on this machine.
        cgroups: creates control groups; None: the drone may not create any.
        identity: names the drone in the environment of its backends.
        environments: finds the backends' processes.
        mount_base, exposed, hidden, user, ip: see `plane.runtime.process.runtime.ProcessRuntime`.
    """

    def __init__(
        self,
        logs: LogCollector,
        *,
        bubblewrap: bool,
        cgroups: Cgroups | None,
        identity: str,
        environments: EnvironmentReader,
        mount_base: Path | None,
        exposed: tuple[Path, ...],
        hidden: tuple[Path, ...],
        user: UserIds | None,
        ip: str | None,
    ) -> None:
        self._logs = logs
        self._bubblewrap = bubblewrap
        self._cgroups = cgroups
        self._identity = identity
        self._environments = environments
        self._mount_base = mount_base
        self._mounts = Mounts(mount_base)
        self._file_calls = FileCalls()
        self._exposed = exposed
        self._hidden = hidden
        self._user = user
        self._ip = ip
        self._empties_bounding_set = may_drop_bounding_set()

    async def resolve(self, executable: Any) -> ResolvedExecutable:
        """Validate an executable, and find its command, folder and user on this machine.

        Raises:
            BackendFailed: names the field and what it must be, or the file system that does not respond.
        """
        if isinstance(executable, ResolvedExecutable):
            return executable
        parsed = read_executable(
            executable,
            bubblewrap=self._bubblewrap,
            shares_of_cpu=self._cgroups is not None,
            mounts=self._mount_base is not None,
        )
        place = repr((parsed.cwd, parsed.command[0], parsed.env.get("PATH"), parsed.user))
        try:
            return await self._file_calls.run(place, partial(self._find, parsed))
        except FileSystemHangs as error:
            raise BackendFailed(
                f"executable.command: a file system with {parsed.command[0]!r}, executable.cwd, or a folder of PATH or "
                f"--expose {error}; repair it, or name other files"
            ) from None

    def _find(self, executable: ProcessExecutable) -> ResolvedExecutable:
        user = user_ids(executable.user, self._user)
        isolated = is_isolated(executable, bubblewrap=self._bubblewrap)
        view = view_of(self._exposed, self._hidden, user) if isolated else None
        return ResolvedExecutable(executable, resolve_command(executable, user, view), user, view)

    async def masked_folders(self) -> Sequence[str]:
        """Return the `FileView.masked` folders of isolated backends; none while their file system does not respond."""
        find = partial(view_of, self._exposed, (), self._user)
        try:
            return (await self._file_calls.run("--expose", find)).masked
        except FileSystemHangs:
            return ()

    async def start(
        self, request: SpawnRequest, resolved: ResolvedExecutable, port: int, held: int, on_location: LocationCallback
    ) -> RunningProcess:
        """Start a backend on a port.

        Args:
            held: descriptor that holds the port and that the supervisor inherits.
            on_location: called just before the start with the control group and the output file.

        Raises:
            BackendFailed: nothing runs. The backend's home is left to the caller.
        """
        backend_id, executable, user, view = request.backend_id, resolved.executable, resolved.user, resolved.view
        owner = None if user is None else user.uid
        mount = await self._mounts.open(executable.mount, request.key, owner)
        cgroup = None
        descriptors = [] if mount is None else [mount]
        try:
            folder = self._logs.ensure_folder(backend_id)
            environment = self._environment(request, resolved, port, folder)
            check_sizes(resolved.command, environment)
            listener = None
            if executable.network is Network.NONE:
                listener = listening_socket(self._ip, port)
                descriptors.append(listener)
            variables = open_environment(environment)
            descriptors.append(variables)
            if self._cgroups is not None:
                cgroup = self._cgroups.create(backend_id, executable.resource_limits)
            status = _open_status(status_file(folder), port)
            descriptors.append(status)
            output_file = self._logs.capture_file(backend_id)
            output = open_for_output(output_file, owner)
            descriptors.append(output)
            deadline_ns = request.hard_deadline_ns
            plan = LaunchPlan(
                command=resolved.command,
                setpriv=SETPRIV,
                user=user,
                empties_bounding_set=self._empties_bounding_set,
                enter=[] if cgroup is None else cgroup.member_files,
                limits=_rlimits(executable.resource_limits, in_cgroup=cgroup is not None),
                open_files=inherited_fd_limit(),
                bubblewrap=None if view is None else bubblewrap_plan(executable, status, mount, held, view),
                folder=None if executable.cwd is None else str(Path(executable.cwd).absolute()),
                reaper=() if view is not None or cgroup is not None else SUBREAPER,
                status_file=str(status_file(folder)),
                not_after_s=None if deadline_ns is None else deadline_ns // 1_000_000_000,
                sets_environment=True,
            )
            groups = () if cgroup is None else tuple(map(str, cgroup.paths.values()))
            on_location(backend_id, ProcessTarget(groups, bubblewrap=view is not None, output=str(output_file)))
            inherited = [held] if view is None else [held, status] if mount is None else [held, status, mount]
            process = ChildProcess.start(
                command_line(plan),
                env=supervisor_environment(os.environ, environment),
                stdin=variables,
                output=output,
                inherited=inherited,
                cwd="/",
            )
            relay = None if listener is None else _start_relay(listener, port, process, environment)
        except (OSError, ValueError) as error:
            if cgroup is not None:
                await asyncio.to_thread(cgroup.remove)
            raise BackendFailed(f"executable.command: {executable.command[0]!r} cannot be started: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        limit = executable.resource_limits.memory_limit_bytes
        log.info("process started", backend=backend_id, pid=process.pid, port=port)
        return RunningProcess(
            backend_id, process, port, view is not None, cgroup, limit, str(output_file), self._environments, relay
        )

    def _environment(
        self, request: SpawnRequest, resolved: ResolvedExecutable, port: int, folder: Path
    ) -> dict[str, str]:
        """Return the environment of the command, and create its home.

        Raises:
            OSError: the home cannot be created.
        """
        env = resolved.executable.env
        home = make_home(folder, request.backend_id, resolved.user) if resolved.view is None else PRIVATE_HOME
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= home_variables(home, env) | env
        environment |= session_environment(request.backend_id, port, request.key, request.static_token)
        environment[DRONE_MARK] = self._identity
        return environment


def _open_status(path: Path, port: int) -> int:
    """Create the status file with the port in it. Return a descriptor for the supervisor."""
    path.unlink(missing_ok=True)
    status = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        write_port(status, port)
    except OSError:
        os.close(status)
        raise
    return status


def _start_relay(listener: int, port: int, process: ChildProcess, environment: Mapping[str, str]) -> ChildProcess:
    """Start the relay to a backend's network. It carries the backend's marks, so that it is killed with the backend."""
    env = supervisor_environment(os.environ, environment)
    try:
        return start_relay(listener, port, process.pid, process.started_at, env)
    except OSError:
        process.send_signal(signal.SIGKILL)
        raise


def _rlimits(limits: ResourceLimits, *, in_cgroup: bool) -> ResourceLimits:
    """Return the limits to set by rlimit.

    A limit of the address space breaks programs that reserve much of it, so a control group limits memory if there is
    one.
    """
    return msgspec.structs.replace(limits, memory_limit_bytes=None) if in_cgroup else limits
