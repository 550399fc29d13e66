"""The runtime whose backends an external executor runs: the drone's side of ``--executor-socket``.

The executor may be restarted at any time. The outcome of a request that got no response is unknown: a backend that may
run and must not is terminated, and one that should run is probed on its port. Messages:
`docs/reference/protocol/external-executor.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from plane.protocol import codec
from plane.protocol.addresses import format_socket_address
from plane.protocol.errors import MessageError
from plane.protocol.executor_messages import (
    ExecutorRequest,
    ExecutorResponse,
    LeasedKey,
    OtherFailure,
    SpawnOutcome,
    TerminateEvent,
    TerminateOutcome,
    UnitOutcome,
    WaitOutcome,
)
from plane.protocol.logs import LogPage
from plane.protocol.spawn import DockerExecutable
from plane.runtime.base import (
    AdoptionResult,
    BackendFailed,
    RuntimeListener,
    SpawnRequest,
    StartupTimedOut,
    check_deadline,
)
from plane.runtime.docker.config import read_executable
from plane.runtime.exit_message import exit_message
from plane.runtime.logs.collector import LogsUnavailable
from plane.tasks import OwnedTasks
from plane.timing import STARTUP_TIMEOUT_S
from plane.transport.json_lines import LineClient, RequestLost

__all__ = ["RemoteRuntime"]

PREPARE_TIMEOUT_S = 1800.0
CALL_TIMEOUT_S = 60.0
RETRY_INTERVAL_S = 0.5
PROBE_TIMEOUT_S = 2.0
# A killed backend is mostly gone at the second poll.
KILL_POLLS = 100
KILL_POLL_INTERVAL_S = 0.1
# Exits of backends that are not known here (yet): the executor reports them before the drone has adopted the backends.
EARLY_EXITS_LIMIT = 10_000
# How long a drone that has just connected waits for early exits.
EARLY_EXIT_WAIT_S = 0.5

T = TypeVar("T")

log = structlog.get_logger("plane.runtime")


class _Handle(msgspec.Struct, frozen=True):
    """What the drone stores of a backend: its port, and whether its executor enforces its deadline."""

    port: int
    enforces_deadline: bool = False


class RemoteRuntime:
    """Sends each operation to an executor.

    Args:
        socket: the executor's Unix socket.
        startup_timeout_s: how long a backend may take to become ready. The executor's response is not awaited for much
            longer.
    """

    name = "unix socket"

    def __init__(self, socket: Path, *, startup_timeout_s: float = STARTUP_TIMEOUT_S) -> None:
        self._listener: RuntimeListener
        self._socket = socket
        self._startup_timeout_s = startup_timeout_s
        self._line = LineClient(socket, self._on_event, self._check_all)
        # Ports of backends whose exit has not been reported; 0 while the backend is being started.
        self._running: dict[str, int] = {}
        # The hard deadlines (CLOCK_BOOTTIME) that the executor enforces.
        self._enforced: dict[str, int] = {}
        self._early_exits: dict[str, TerminateEvent] = {}
        self._tasks = OwnedTasks(lambda error: log.error("task of the executor connection failed", exc_info=error))

    async def start(self, listener: RuntimeListener) -> None:
        """Begin to connect; see `plane.runtime.base.Runtime.start`."""
        self._listener = listener
        self._tasks.start(self._line.run())

    async def prepare(self, executable: Any) -> DockerExecutable:
        """Have the executable prepared, again if the connection breaks; see `plane.runtime.base.Runtime.prepare`."""
        parsed = read_executable(executable)
        request = ExecutorRequest(prepare=parsed)
        end = asyncio.get_running_loop().time() + PREPARE_TIMEOUT_S
        while True:
            try:
                _ok(await self._call(request, PREPARE_TIMEOUT_S, UnitOutcome))
            except RequestLost as error:
                if asyncio.get_running_loop().time() >= end:
                    raise BackendFailed(f"not prepared: {error}") from error
                log.warning("executable not prepared; retrying", error=str(error))
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                return parsed

    async def spawn(self, request: SpawnRequest) -> int:
        """Have the backend started; see `plane.runtime.base.Runtime.spawn`."""
        backend_id, key, hard_deadline_ns = request.backend_id, request.key, request.hard_deadline_ns
        check_deadline(hard_deadline_ns)
        leased = None
        if key is not None:
            hard_ns = UNSET if hard_deadline_ns is None else hard_deadline_ns
            leased = LeasedKey(key.key, key.deadlines, key.token, hard_deadline_ns=hard_ns)
        message = ExecutorRequest(spawn=(backend_id, read_executable(request.executable), leased, request.static_token))
        # An early exit under this name belongs to an earlier backend.
        self._early_exits.pop(backend_id, None)
        # Known before the request is sent, so that an exit is reported however soon it comes.
        self._running[backend_id] = 0
        try:
            started = _ok(await self._call(message, CALL_TIMEOUT_S, SpawnOutcome))
        except BaseException as error:
            # It may run all the same.
            self._running.pop(backend_id, None)
            self._tasks.start(self._kill_until_gone(backend_id))
            if isinstance(error, RequestLost):
                raise BackendFailed(f"not known whether it was started: {error}; connect again") from error
            raise
        if backend_id in self._running:
            self._running[backend_id] = started.port
            if started.enforces_deadline is True and hard_deadline_ns is not None:
                self._enforced[backend_id] = hard_deadline_ns
        return int(started.port)

    def extend_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Send the new deadline to an executor that enforces deadlines."""
        if backend_id in self._enforced:
            self._enforced[backend_id] = hard_deadline_ns
            self._tasks.start(self._send_deadline(backend_id, hard_deadline_ns))

    async def _send_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Send the deadline until the executor has it, or a later one supersedes it."""
        request = ExecutorRequest(renew=(backend_id, hard_deadline_ns))
        while self._enforced.get(backend_id) == hard_deadline_ns:
            try:
                _ok(await self._call(request, CALL_TIMEOUT_S, UnitOutcome))
            except BackendFailed as error:
                log.warning("deadline not extended; retrying", backend=backend_id, error=str(error))
            except RequestLost:
                pass
            else:
                return
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Return nothing: the executor itself ends the backends of its former process."""
        return []

    def handle(self, backend_id: str) -> Any:
        """Return the port and who enforces the deadline; see `plane.runtime.base.Runtime.handle`."""
        port = self._running.get(backend_id)
        return codec.to_builtins(_Handle(port, backend_id in self._enforced)) if port else None

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Check whether the backend still listens; see `plane.runtime.base.Runtime.adopt`."""
        # The executor queues events while no drone is connected, and sends them to the first that connects.
        await asyncio.sleep(EARLY_EXIT_WAIT_S)
        try:
            known = codec.convert(handle, _Handle)
        except MessageError:
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False)
        if await _listens(known.port) and backend_id not in self._early_exits:
            self._running[backend_id] = known.port
            if known.enforces_deadline:
                # The deadline is unknown here until the next renewal, which comes before the deadline.
                self._enforced[backend_id] = 0
            return AdoptionResult(running=True)
        await self.remove_orphan(backend_id)
        ended = self._early_exits.pop(backend_id, None)
        code = None if ended is None else ended.exit_code
        return AdoptionResult(running=False, exit_code=code, message=None if ended is None else _message(code))

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Let the executor wait; see `plane.runtime.base.Runtime.wait_for_backend`."""
        address = format_socket_address(host, port)
        request = ExecutorRequest(wait_for_backend=(backend_id, address))
        timeout_s = self._startup_timeout_s + CALL_TIMEOUT_S
        while True:
            try:
                outcome = await self._call(request, timeout_s, WaitOutcome)
            except RequestLost as error:
                if backend_id not in self._running:
                    raise BackendFailed(str(error)) from error
                await asyncio.sleep(RETRY_INTERVAL_S)
                continue
            match outcome.err:
                case "StartupTimeout":
                    raise StartupTimedOut("did not respond to HTTP in time; it must listen on the port in $PORT")
                case OtherFailure(other=text):
                    raise BackendFailed(str(text))
                case _:
                    return

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Have the backend terminated; see `plane.runtime.base.Runtime.terminate`."""
        try:
            was_running: bool = _ok(await self._send_terminate(backend_id, hard=hard))
        except RequestLost as error:
            raise BackendFailed(str(error)) from error
        if not was_running:
            self._running.pop(backend_id, None)
        return was_running

    async def _send_terminate(self, backend_id: str, *, hard: bool) -> TerminateOutcome:
        return await self._call(ExecutorRequest(terminate=(backend_id, hard)), CALL_TIMEOUT_S, TerminateOutcome)

    async def remove_orphan(self, backend_id: str) -> None:
        """Have the backend killed and return once it is gone, so that its exit is not taken for a later backend's."""
        try:
            for _ in range(KILL_POLLS):
                if not _ok(await self._send_terminate(backend_id, hard=True)):
                    return
                await asyncio.sleep(KILL_POLL_INTERVAL_S)
        except RequestLost as error:
            raise BackendFailed(str(error)) from error
        raise BackendFailed(f"the executor was asked to kill {backend_id} and still runs it; look at the executor")

    async def _kill_until_gone(self, backend_id: str) -> None:
        """Kill a backend that must not run; retry until that is certain."""
        while True:
            try:
                await self.remove_orphan(backend_id)
            except BackendFailed as error:
                log.warning("backend not terminated; retrying", backend=backend_id, error=str(error))
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                return

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Refuse: the executor's protocol does not transfer output; see `plane.runtime.base.Runtime.read_logs`."""
        raise LogsUnavailable("an external executor runs this drone's backends and keeps their output; look there")

    async def run(self) -> None:
        """Wait until cancelled: the executor measures and prunes."""
        await asyncio.Event().wait()

    async def close(self, *, leave_running: bool) -> None:
        """Kill the backends, unless they are left for the drone's next process, and disconnect."""
        if not leave_running:
            for backend_id in list(self._running):
                try:
                    await self.remove_orphan(backend_id)
                except BackendFailed as error:
                    log.warning("backend not terminated", backend=backend_id, error=str(error))
        await self._tasks.end()

    async def _call(self, request: ExecutorRequest, timeout_s: float, kind: type[T]) -> T:
        """Send a request and return the content of its response.

        Raises:
            RequestLost: no response, or none within the timeout.
            BackendFailed: the response is of another kind.
        """
        response = (await self._line.request(request, timeout_s)).content
        if not isinstance(response, kind):
            raise BackendFailed(
                f"unexpected response from the external executor: {type(response).__name__} instead of {kind.__name__}"
            )
        return response

    def _on_event(self, event: ExecutorResponse) -> None:
        match event.content:
            case TerminateEvent(backend_id, exit_code) as ended:
                self._enforced.pop(backend_id, None)
                if self._running.pop(backend_id, None) is not None:
                    self._listener.on_exit(backend_id, exit_code, _message(exit_code))
                elif len(self._early_exits) < EARLY_EXITS_LIMIT:
                    self._early_exits[backend_id] = ended
            case metrics if event.metrics_message is not UNSET:
                self._listener.on_metrics(metrics)
            case other:
                log.warning("unexpected message type from external executor", kind=type(other).__name__)

    def _check_all(self) -> None:
        """Check all backends after each connect: an executor that was restarted may have ended them."""
        for backend_id, port in list(self._running.items()):
            if port:
                self._tasks.start(self._check(backend_id, port))

    async def _check(self, backend_id: str, port: int) -> None:
        # Its exit may be among the first events of the new connection.
        await asyncio.sleep(EARLY_EXIT_WAIT_S)
        if backend_id in self._running and not await _listens(port):
            await self._kill_until_gone(backend_id)
            if self._running.pop(backend_id, None) is not None:
                self._listener.on_exit(backend_id, None, "its executor was restarted and no longer runs it")


def _ok(outcome: UnitOutcome | SpawnOutcome | TerminateOutcome) -> Any:
    """Return the value of a successful outcome.

    Raises:
        BackendFailed: with the executor's error message.
    """
    if not isinstance(outcome.err, UnsetType):
        raise BackendFailed(outcome.err)
    return outcome.ok


async def _listens(port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        # Its backlog is full or the machine is slow, but something listens.
        return True
    writer.close()
    return True


def _message(code: int | None) -> str | None:
    """Return the message about an exit. The executor's protocol carries neither cause nor output."""
    if code == 0:
        return None
    cause = "ended with an exit code unknown to the executor" if code is None else f"exited with code {code}"
    return exit_message(cause, None)
