"""Backends as plain processes: the runtime where no Docker engine answers.

Each backend is a session of its own, in a PID namespace by bubblewrap where that works, so that none of its
descendants survives it. Without bubblewrap, descendants are found by the variable SESSION_BACKEND_ID in their
environment. The executable is `plane.protocol.spawn.ProcessExecutable`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.keys import AcquiredKey
from plane.protocol.spawn import ProcessExecutable, ResourceLimits
from plane.runtime.base import BackendFailed, ExitListener, session_environment
from plane.runtime.child_process import ChildProcess
from plane.runtime.output_tail import OutputTail
from plane.runtime.processes import first_descendant, kill_marked
from plane.runtime.readiness import until_it_answers
from plane.timing import SOFT_TERMINATE_GRACE_S, STARTUP_TIMEOUT_S

__all__ = ["ProcessRuntime", "bubblewrap_works"]

PROBE_LIMIT_S = 5.0
# How long the output is read after the exit; a descendant may hold the pipe open without bubblewrap.
LAST_OUTPUT_LIMIT_S = 1.0
# What of the drone's environment a backend gets; everything else may be secret.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")

log = structlog.get_logger("plane.runtime")


@dataclass(slots=True)
class _Running:
    """One backend's process; ``ended`` is set once nothing of it runs any more."""

    process: ChildProcess
    output: OutputTail
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


async def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed and may make a PID namespace here."""
    path = shutil.which("bwrap")
    if path is None:
        return False
    probe = await asyncio.create_subprocess_exec(*_BUBBLEWRAP, "true", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        async with asyncio.timeout(PROBE_LIMIT_S):
            return await probe.wait() == 0
    except TimeoutError:
        probe.kill()
        await probe.wait()
        return False


_BUBBLEWRAP = ("bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "--die-with-parent", "--")


class ProcessRuntime:
    """Runs backends as processes of this machine.

    Args:
        on_exit: told of each exit.
        bubblewrap: use it; see `bubblewrap_works`.
        grace_s: from SIGTERM to SIGKILL.
        startup_limit_s: until a backend must answer HTTP.
    """

    name = "process"

    def __init__(
        self,
        on_exit: ExitListener,
        *,
        bubblewrap: bool,
        grace_s: float = SOFT_TERMINATE_GRACE_S,
        startup_limit_s: float = STARTUP_TIMEOUT_S,
    ) -> None:
        self._on_exit = on_exit
        self._bubblewrap = bubblewrap
        self._grace_s = grace_s
        self._startup_limit_s = startup_limit_s
        self._running: dict[str, _Running] = {}
        self._starting: dict[str, asyncio.Task[int]] = {}

    async def prepare(self, executable: Any) -> None:
        """Check the executable: its shape, its limits, and that its command and folder are there."""
        wanted = _read(executable)
        _command(wanted)

    async def spawn(self, backend_id: str, executable: Any, key: AcquiredKey | None, static_token: str | None) -> int:
        """Start the process; see `plane.runtime.base.Runtime.spawn`."""
        # A task of its own: if the caller is cancelled, `terminate` finds what has been started.
        starting = asyncio.create_task(self._start(backend_id, _read(executable), key, static_token))
        self._starting[backend_id] = starting
        starting.add_done_callback(lambda done: self._started(backend_id, done))
        return await asyncio.shield(starting)

    def _started(self, backend_id: str, starting: asyncio.Task[int]) -> None:
        del self._starting[backend_id]
        if not starting.cancelled() and (error := starting.exception()):
            log.info("process not started", backend=backend_id, error=str(error))

    async def _start(
        self, backend_id: str, wanted: ProcessExecutable, key: AcquiredKey | None, static_token: str | None
    ) -> int:
        port = _free_port()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= wanted.env | session_environment(backend_id, port, key, static_token)
        command = _limited(_command(wanted), wanted.resource_limits)
        # Either way the process ends with this one.
        prefix = _BUBBLEWRAP if self._bubblewrap else ("setpriv", "--pdeathsig", "SIGKILL", "--")
        try:
            process = await ChildProcess.start([*prefix, *command], cwd=wanted.cwd or "/", env=environment)
        except (OSError, ValueError) as error:
            raise BackendFailed(f"executable.command: {wanted.command[0]!r} cannot be started: {error}") from error
        running = _Running(process, OutputTail())
        self._running[backend_id] = running
        running.tasks.append(asyncio.create_task(self._watch(backend_id, running)))
        log.info("process started", backend=backend_id, pid=process.pid, port=port)
        return port

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once it answers; see `plane.runtime.base.Runtime.wait_for_backend`."""
        await until_it_answers(host, port, self._startup_limit_s)

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """End the process; see `plane.runtime.base.Runtime.terminate`."""
        if starting := self._starting.get(backend_id):
            await asyncio.wait([starting])
        running = self._running.get(backend_id)
        if running is None:
            return False
        if hard:
            self._kill(backend_id, running)
        else:
            self._ask_to_stop(backend_id, running)
            running.tasks.append(asyncio.create_task(self._kill_after_grace(backend_id, running)))
        return True

    def _ask_to_stop(self, backend_id: str, running: _Running) -> None:
        """SIGTERM for the command alone, as an init system does: it knows how to end its children."""
        pid: int | None = running.process.pid
        if self._bubblewrap:
            # bubblewrap passes no signal on. Below it are its init and then the command.
            pid = first_descendant(running.process.pid, depth=2)
        if pid is None:
            self._kill(backend_id, running)
        else:
            _signal(pid, signal.SIGTERM)

    async def _kill_after_grace(self, backend_id: str, running: _Running) -> None:
        await asyncio.sleep(self._grace_s)
        log.warning("process did not end within the grace; it is killed", backend=backend_id)
        self._kill(backend_id, running)

    def _kill(self, backend_id: str, running: _Running) -> None:
        """SIGKILL for the whole group. With bubblewrap, its namespace's init too, which ends all in it."""
        if self._bubblewrap and (init := first_descendant(running.process.pid, depth=1)):
            # Not bubblewrap itself: it reports how the command ended.
            _signal(init, signal.SIGKILL)
            return
        try:
            os.killpg(running.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("process has ended already", backend=backend_id)

    async def _watch(self, backend_id: str, running: _Running) -> None:
        """Keep the tail of the output, wait for the exit, end what is left, and tell."""
        process, output = running.process, running.output
        reading = asyncio.create_task(output.read_from(process.output))
        status = await process.wait()
        if not self._bubblewrap:
            await asyncio.to_thread(kill_marked, backend_id)
        await asyncio.wait([reading], timeout=LAST_OUTPUT_LIMIT_S)
        reading.cancel()
        await asyncio.wait([reading])
        del self._running[backend_id]
        running.ended.set()
        for task in running.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        code = 128 - status if status < 0 else status
        log.info("process ended", backend=backend_id, exit_code=code)
        self._on_exit(backend_id, code, _message(code, output.text()))

    async def remove_leftover(self, backend_id: str) -> None:
        """Kill whatever carries the backend's id in its environment."""
        await asyncio.to_thread(kill_marked, backend_id)

    async def close(self) -> None:
        """Kill what still runs."""
        left = list(self._running.items())
        for backend_id, running in left:
            self._kill(backend_id, running)
        for _, running in left:
            await running.ended.wait()


def _read(executable: Any) -> ProcessExecutable:
    """The executable, checked.

    Raises:
        BackendFailed: names the field and what it must be.
    """
    if isinstance(executable, dict) and "image" in executable and "command" not in executable:
        raise BackendFailed(
            'executable: this drone runs processes, not images; give {"command": ["program", "argument", …]}, '
            "or use a drone with Docker"
        )
    try:
        wanted = codec.convert(executable, ProcessExecutable)
    except MessageError as error:
        raise BackendFailed(
            f"executable{error.path.removeprefix('$')}: {error.reason}; the shape is "
            '{"command": ["program", "argument", …], "env": {…}, "cwd": "/folder"}'
        ) from None
    if not wanted.command or not wanted.command[0]:
        raise BackendFailed("executable.command: must name a program and its arguments")
    for name in wanted.env:
        if not name or "=" in name:
            raise BackendFailed(f"executable.env: {name!r} is no name of a variable")
    if wanted.mount is not None and wanted.mount is not False:
        raise BackendFailed("executable.mount: this drone's processes have no mounts; leave it out")
    limits = wanted.resource_limits
    if limits.cpu_period is not None or limits.cpu_period_percent is not None:
        raise BackendFailed(
            "executable.resource_limits: a share of CPU cannot be enforced for processes; leave out cpu_period and "
            "cpu_period_percent, or use a drone with Docker"
        )
    return wanted


def _command(wanted: ProcessExecutable) -> list[str]:
    """argv with the program's path.

    Raises:
        BackendFailed: no such program or folder.
    """
    if wanted.cwd is not None and not Path(wanted.cwd).is_dir():
        raise BackendFailed(f"executable.cwd: {wanted.cwd!r} is no folder on the drone's machine")
    search = wanted.env.get("PATH", os.environ.get("PATH"))
    program = wanted.command[0]
    if "/" in program:
        program = str(Path(wanted.cwd or "/") / program)
    path = shutil.which(program, path=search)
    if path is None:
        raise BackendFailed(
            f"executable.command: {wanted.command[0]!r} does not exist on the drone's machine, or may not be executed; "
            "install it there, or give its full path"
        )
    return [path, *wanted.command[1:]]


def _limited(command: list[str], limits: ResourceLimits) -> list[str]:
    """The command under its limits, which a shell sets before it becomes the command."""
    settings = []
    if limits.memory_limit_bytes is not None:
        settings.append(f"ulimit -v {max(1, limits.memory_limit_bytes // 1024)}")
    if limits.cpu_time_limit is not None:
        settings.append(f"ulimit -t {limits.cpu_time_limit}")
    if limits.disk_limit_bytes is not None:
        settings.append(f"ulimit -f {max(1, limits.disk_limit_bytes // 512)}")
    if not settings:
        return command
    return ["/bin/sh", "-c", " && ".join([*settings, 'exec "$@"']), "sh", *command]


def _free_port() -> int:
    """A port that was free a moment ago; the kernel does not give it again soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("process has ended already", pid=pid)


def _message(code: int, output: str) -> str | None:
    """What to tell people of an exit; None for a clean one."""
    if code == 0:
        return None
    how = f"ended by signal {code - 128}" if code > 128 else f"exited with code {code}"
    return f"{how}; its last output:\n{output}" if output else f"{how}, without any output"
