"""The other side of ``--executor-socket``: answers a drone's requests with a runtime of this process.

`plane.cli.executor` runs it. A request that comes again, since its answer was lost, does nothing twice.
"""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import msgspec
import structlog
from msgspec import UNSET

from plane import timing
from plane.protocol import codec
from plane.protocol.addresses import parse_socket_address
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.errors import InvalidName, PlaneError
from plane.protocol.executor_messages import (
    ExecutorRequest,
    ExecutorResponse,
    LeasedKey,
    OtherFailure,
    SpawnOutcome,
    SpawnResult,
    TerminateEvent,
    TerminateOutcome,
    UnitOutcome,
    WaitOutcome,
)
from plane.protocol.names import Prefix, check_name, container_name
from plane.protocol.spawn import DockerExecutable
from plane.runtime.base import BackendFailed, DeadlineEnforcer, Runtime, StartupTimedOut

__all__ = ["RequestHandler"]


# How long a start waits for the end of a former executor's backends.
ORPHANS_TIMEOUT_S = 30.0
# A deadline that never comes.
NEVER_NS = 2**62
# A drone asks a backend to stop so long before its hard deadline.
ASKED_BEFORE_NS = round((timing.KEY_HARD_TERMINATE_AFTER_S - timing.KEY_SOFT_TERMINATE_AFTER_S) * 1e9)

log = structlog.get_logger("plane.executor")


class RequestHandler:
    """Answers requests. ``runtime`` is set before the first one."""

    runtime: Runtime

    def __init__(self, enforcer: DeadlineEnforcer) -> None:
        self._enforcer = enforcer
        self._spawns: dict[str, asyncio.Task[int]] = {}
        self._orphans_ended = asyncio.Event()

    async def remove_orphans(self) -> None:
        """End what a former executor of this socket left running; nothing is started before.

        Raises:
            BackendFailed: not known whether there is any.
        """
        if orphans := await self.runtime.remove_orphans(()):
            log.warning("ended backends of this executor's former process", backends=orphans)
        self._orphans_ended.set()

    async def answer(self, request: ExecutorRequest) -> ExecutorResponse:
        """Do what is asked for, and say what came of it."""
        match request.content:
            case DockerExecutable() as executable:
                return ExecutorResponse(prepare_result=await self._prepare(executable))
            case (str() as backend_id, bool() as hard):
                return ExecutorResponse(terminate_result=await self._terminate(backend_id, hard=hard))
            case (str() as backend_id, int() as hard_deadline_ns):
                if backend_id in self._spawns:
                    self._hold(backend_id, hard_deadline_ns)
                return ExecutorResponse(renew_result=UnitOutcome(ok=None))
            case (str() as backend_id, str() as address):
                return ExecutorResponse(wait_for_backend_result=await self._wait(backend_id, address))
            case (backend_id, executable, key, static_token):
                return ExecutorResponse(spawn_result=await self._spawn(backend_id, executable, key, static_token))
        raise AssertionError("unreachable: every variant is one of these")

    async def _prepare(self, executable: DockerExecutable) -> UnitOutcome:
        try:
            await self.runtime.prepare(self._own_form(executable))
        except BackendFailed as error:
            return UnitOutcome(err=str(error))
        return UnitOutcome(ok=None)

    async def _spawn(
        self, backend_id: str, executable: DockerExecutable, key: LeasedKey | None, static_token: str | None
    ) -> SpawnOutcome:
        try:
            # It names folders and control groups.
            check_name(backend_id, Prefix.BACKEND)
        except InvalidName as error:
            return SpawnOutcome(err=f"backend: {error}")
        spawn = self._spawns.get(backend_id)
        if spawn is None:
            # A task of its own, which goes on if the drone goes: it then asks again, or has it ended.
            spawn = asyncio.create_task(self._start(backend_id, executable, key, static_token))
            self._spawns[backend_id] = spawn
        try:
            port = await asyncio.shield(spawn)
        except PlaneError as error:
            self._spawns.pop(backend_id, None)
            self._enforcer.release(backend_id)
            return SpawnOutcome(err=str(error))
        enforces = UNSET if _hard_deadline_ns(key) is None else True
        return SpawnOutcome(ok=SpawnResult(container_name(backend_id), port, enforces))

    async def _start(
        self, backend_id: str, executable: DockerExecutable, key: LeasedKey | None, static_token: str | None
    ) -> int:
        try:
            async with asyncio.timeout(ORPHANS_TIMEOUT_S):
                await self._orphans_ended.wait()
        except TimeoutError:
            raise BackendFailed("the executor is still ending what its former process left; try again") from None
        hard_ns = _hard_deadline_ns(key)
        # Without a deadline, of an original drone, it ends with this executor at the latest.
        self._hold(backend_id, NEVER_NS if hard_ns is None else hard_ns)
        await self._enforcer.confirmed()
        return await self.runtime.spawn(backend_id, self._own_form(executable), key, static_token, hard_ns)

    def _hold(self, backend_id: str, hard_ns: int) -> None:
        self._enforcer.hold(backend_id, hard_ns - ASKED_BEFORE_NS, hard_ns)

    async def _terminate(self, backend_id: str, *, hard: bool) -> TerminateOutcome:
        if spawn := self._spawns.get(backend_id):
            await asyncio.wait([spawn])
        try:
            if await self.runtime.terminate(backend_id, hard=hard):
                return TerminateOutcome(ok=True)
            # One that this process did not start.
            await self.runtime.remove_orphan(backend_id)
        except BackendFailed as error:
            return TerminateOutcome(err=str(error))
        return TerminateOutcome(ok=False)

    async def _wait(self, backend_id: str, address: str) -> WaitOutcome:
        try:
            await self.runtime.wait_for_backend(backend_id, *parse_socket_address(address))
        except StartupTimedOut:
            return WaitOutcome(err="StartupTimeout")
        except (PlaneError, ValueError) as error:
            return WaitOutcome(err=OtherFailure(other=str(error)))
        return WaitOutcome(ok=None)

    def ended(self, backend_id: str, exit_code: int | None, message: str | None) -> ExecutorResponse:
        """What to tell the drone of an exit; ``message`` has no place in the protocol."""
        self._spawns.pop(backend_id, None)
        self._enforcer.release(backend_id)
        return ExecutorResponse(terminate_event=TerminateEvent(backend_id, exit_code))

    def measured(self, metrics: BackendMetrics) -> ExecutorResponse:
        """What to tell the drone of a backend's use."""
        return ExecutorResponse(metrics_message=metrics)

    def _own_form(self, executable: DockerExecutable) -> Any:
        """As the runtime wants it. Where that runs processes, the "image" is a command line."""
        if self.runtime.name != "process":
            return codec.to_builtins(executable)
        try:
            command = shlex.split(executable.image)
        except ValueError as error:
            raise BackendFailed(f"executable.image: this executor takes it as a command line: {error}") from None
        return {
            "command": command,
            "env": executable.env,
            "resource_limits": msgspec.to_builtins(executable.resource_limits),
            "mount": executable.mount,
        }


def _hard_deadline_ns(key: LeasedKey | None) -> int | None:
    """None: the drone is an original, and sent none."""
    return None if key is None or key.hard_deadline_ns is UNSET else key.hard_deadline_ns
