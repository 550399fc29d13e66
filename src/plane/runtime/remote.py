"""Backends run by another process, over a Unix socket: the drone's side of ``--executor-socket``.

The executor may be restarted at any time. What it was told and has not answered is not known to be done or not: what
may run and must not is ended; what should run is asked for at its port. Rule: page 2, "External executor socket".
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
from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, StartupTimedOut, check_deadline
from plane.runtime.docker.config import read_executable
from plane.runtime.logs.collector import LogsUnavailable
from plane.tasks import OwnedTasks
from plane.timing import STARTUP_TIMEOUT_S
from plane.transport.json_lines import LineClient, RequestLost

__all__ = ["RemoteRuntime"]

PREPARE_LIMIT_S = 1800.0
CALL_LIMIT_S = 60.0
RETRY_S = 0.5
PROBE_LIMIT_S = 2.0
# What is killed is mostly gone at the second look.
KILL_LOOKS = 100
KILL_LOOK_S = 0.1
# An end of a backend that nobody here knows yet: the executor tells of it before the drone has taken it over.
EARLY_LIMIT = 10_000
# How long a drone that has just started waits for such.
EARLY_WAIT_S = 0.5

T = TypeVar("T")

log = structlog.get_logger("plane.runtime")


class _Handle(msgspec.Struct, frozen=True):
    """Where a backend listens on this machine, and whether its executor enforces its deadline."""

    port: int
    enforces_deadline: bool = False


class RemoteRuntime:
    """Asks an executor. `start` before anything else.

    Args:
        listener: told of each exit, and what is used.
        socket: the executor's.
        startup_limit_s: until a backend must answer HTTP; beyond that the executor's own word is not waited for.
    """

    name = "unix socket"

    def __init__(self, listener: RuntimeListener, socket: Path, *, startup_limit_s: float = STARTUP_TIMEOUT_S) -> None:
        self._listener = listener
        self._socket = socket
        self._startup_limit_s = startup_limit_s
        self._line = LineClient(socket, self._heard, self._look_after_all)
        # Ports of backends whose exit has not been told.
        self._running: dict[str, int] = {}
        # The hard deadlines of those that their executor enforces.
        self._enforced: dict[str, int] = {}
        self._early: dict[str, TerminateEvent] = {}
        self._tasks = OwnedTasks(lambda error: log.error("looking after the executor failed", exc_info=error))

    async def start(self) -> None:
        """Begin to connect."""
        self._tasks.start(self._line.run())

    async def prepare(self, executable: Any) -> None:
        """Have it prepared, again if the connection breaks; see `plane.runtime.base.Runtime.prepare`."""
        request = ExecutorRequest(prepare=read_executable(executable))
        end = asyncio.get_running_loop().time() + PREPARE_LIMIT_S
        while True:
            try:
                _ok(await self._ask(request, PREPARE_LIMIT_S, UnitOutcome))
            except RequestLost as error:
                if asyncio.get_running_loop().time() >= end:
                    raise BackendFailed(f"not prepared: {error}") from error
                log.warning("executable not prepared; asking again", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def spawn(
        self,
        backend_id: str,
        executable: Any,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None = None,
    ) -> int:
        """Have it started; see `plane.runtime.base.Runtime.spawn`."""
        check_deadline(not_after_ns)
        leased = None
        if key is not None:
            hard_ns = UNSET if not_after_ns is None else not_after_ns
            leased = LeasedKey(key.key, key.deadlines, key.token, hard_deadline_ns=hard_ns)
        request = ExecutorRequest(spawn=(backend_id, read_executable(executable), leased, static_token))
        # What was told of a former one of this name is over.
        self._early.pop(backend_id, None)
        # Known before it is asked for, so that its end is told however soon it comes.
        self._running[backend_id] = 0
        try:
            started = _ok(await self._ask(request, CALL_LIMIT_S, SpawnOutcome))
        except BaseException as error:
            # It may run all the same.
            self._running.pop(backend_id, None)
            self._tasks.start(self._end_surely(backend_id))
            if isinstance(error, RequestLost):
                raise BackendFailed(f"not known whether it was started: {error}; connect again") from error
            raise
        if backend_id in self._running:
            self._running[backend_id] = started.port
            if started.enforces_deadline is True and not_after_ns is not None:
                self._enforced[backend_id] = not_after_ns
        return int(started.port)

    def extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Have the deadline extended by an executor that enforces it."""
        if backend_id in self._enforced:
            self._enforced[backend_id] = hard_deadline_ns
            self._tasks.start(self._extend(backend_id, hard_deadline_ns))

    async def _extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Send the deadline, however often that takes, until it is superseded."""
        request = ExecutorRequest(renew=(backend_id, hard_deadline_ns))
        while self._enforced.get(backend_id) == hard_deadline_ns:
            try:
                _ok(await self._ask(request, CALL_LIMIT_S, UnitOutcome))
            except BackendFailed as error:
                log.warning("deadline not extended; trying again", backend=backend_id, error=str(error))
            except RequestLost:
                pass
            else:
                return
            await asyncio.sleep(RETRY_S)

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """The executor ends what a former one left; see `plane.runtime.base.Runtime.remove_orphans`."""
        return []

    def handle(self, backend_id: str) -> Any:
        """Its port; see `plane.runtime.base.Runtime.handle`."""
        port = self._running.get(backend_id)
        return codec.to_builtins(_Handle(port, backend_id in self._enforced)) if port else None

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """See whether it listens still; see `plane.runtime.base.Runtime.adopt`."""
        # The executor keeps what it could not tell, and tells it to the first who connects.
        await asyncio.sleep(EARLY_WAIT_S)
        try:
            known = codec.convert(handle, _Handle)
        except MessageError:
            await self.remove_orphan(backend_id)
            return AdoptionResult(running=False)
        if await _listens(known.port) and backend_id not in self._early:
            self._running[backend_id] = known.port
            if known.enforces_deadline:
                # Not known here until the next renewal, which comes before it.
                self._enforced[backend_id] = 0
            return AdoptionResult(running=True)
        await self.remove_orphan(backend_id)
        ended = self._early.pop(backend_id, None)
        code = None if ended is None else ended.exit_code
        return AdoptionResult(running=False, exit_code=code, message=None if ended is None else _message(code))

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Leave the waiting to the executor; see `plane.runtime.base.Runtime.wait_for_backend`."""
        address = format_socket_address(host, port)
        request = ExecutorRequest(wait_for_backend=(backend_id, address))
        limit_s = self._startup_limit_s + CALL_LIMIT_S
        while True:
            try:
                outcome = await self._ask(request, limit_s, WaitOutcome)
            except RequestLost as error:
                if backend_id not in self._running:
                    raise BackendFailed(str(error)) from error
                await asyncio.sleep(RETRY_S)
                continue
            match outcome.err:
                case "StartupTimeout":
                    raise StartupTimedOut("did not answer HTTP in time; it must listen on the port in $PORT")
                case OtherFailure(other=text):
                    raise BackendFailed(str(text))
                case _:
                    return

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Have it ended; see `plane.runtime.base.Runtime.terminate`."""
        try:
            was_running: bool = _ok(await self._ask_to_end(backend_id, hard=hard))
        except RequestLost as error:
            raise BackendFailed(str(error)) from error
        if not was_running:
            self._running.pop(backend_id, None)
        return was_running

    async def _ask_to_end(self, backend_id: str, *, hard: bool) -> TerminateOutcome:
        return await self._ask(ExecutorRequest(terminate=(backend_id, hard)), CALL_LIMIT_S, TerminateOutcome)

    async def remove_orphan(self, backend_id: str) -> None:
        """Have it killed, if it runs, and return when it does not: its end must not be taken for a later one's."""
        try:
            for _ in range(KILL_LOOKS):
                if not _ok(await self._ask_to_end(backend_id, hard=True)):
                    return
                await asyncio.sleep(KILL_LOOK_S)
        except RequestLost as error:
            raise BackendFailed(str(error)) from error
        raise BackendFailed(f"the executor was told to kill {backend_id}, and still runs it")

    async def _end_surely(self, backend_id: str) -> None:
        """Kill what must not run, however often that takes."""
        while True:
            try:
                await self.remove_orphan(backend_id)
            except BackendFailed as error:
                log.warning("cannot end backend; trying again", backend=backend_id, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """The protocol has no output; see `plane.runtime.base.Runtime.read_logs`."""
        raise LogsUnavailable(
            "this drone leaves backends to an external executor, which keeps their output; look there"
        )

    async def run(self) -> None:
        """Measuring and pruning is the executor's."""
        await asyncio.Event().wait()

    async def close(self, *, leave_running: bool) -> None:
        """Have ended what still runs, unless that is left for the drone's next process, and hang up."""
        if not leave_running:
            for backend_id in list(self._running):
                try:
                    await self.remove_orphan(backend_id)
                except BackendFailed as error:
                    log.warning("backend not ended", backend=backend_id, error=str(error))
        await self._tasks.end()

    async def _ask(self, request: ExecutorRequest, limit_s: float, kind: type[T]) -> T:
        answer = (await self._line.request(request, limit_s)).content
        if not isinstance(answer, kind):
            raise BackendFailed(f"the executor answered with a {type(answer).__name__}, not with a {kind.__name__}")
        return answer

    def _heard(self, event: ExecutorResponse) -> None:
        match event.content:
            case TerminateEvent(backend_id, exit_code) as ended:
                self._enforced.pop(backend_id, None)
                if self._running.pop(backend_id, None) is not None:
                    self._listener.exited(backend_id, exit_code, _message(exit_code))
                elif len(self._early) < EARLY_LIMIT:
                    self._early[backend_id] = ended
            case metrics if event.metrics_message is not UNSET:
                self._listener.measured(metrics)
            case other:
                log.warning("the executor says what is no event", kind=type(other).__name__)

    def _look_after_all(self) -> None:
        """After each connection: an executor that was restarted may not run any more what it ran."""
        for backend_id, port in list(self._running.items()):
            if port:
                self._tasks.start(self._look_after(backend_id, port))

    async def _look_after(self, backend_id: str, port: int) -> None:
        # Its end may be among the first things that the executor tells.
        await asyncio.sleep(EARLY_WAIT_S)
        if backend_id in self._running and not await _listens(port):
            await self._end_surely(backend_id)
            if self._running.pop(backend_id, None) is not None:
                self._listener.exited(backend_id, None, "its executor was restarted, and does not run it any more")


def _ok(outcome: UnitOutcome | SpawnOutcome | TerminateOutcome) -> Any:
    """The value.

    Raises:
        BackendFailed: the executor's own words.
    """
    if not isinstance(outcome.err, UnsetType):
        raise BackendFailed(outcome.err)
    return outcome.ok


async def _listens(port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_LIMIT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        # Full or slow, but there.
        return True
    writer.close()
    return True


def _message(code: int | None) -> str | None:
    if code == 0:
        return None
    return "ended, and the executor does not know how" if code is None else f"exited with code {code}"
