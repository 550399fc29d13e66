"""Handle the requests of a drone with a runtime of this process: the executor's side of ``--executor-socket``.

A drone repeats a request whose response was lost; a repeated request has no further effect. Messages:
`docs/reference/protocol/external-executor.md`.
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
from plane.runtime.base import BackendFailed, DeadlineEnforcer, Runtime, SpawnRequest, StartupTimedOut
from plane.runtime.process.runtime import ProcessRuntime

__all__ = ["RequestHandler"]


# How long a start waits for the removal of the former executor's backends.
ORPHANS_TIMEOUT_S = 30.0
# A deadline that never passes.
NEVER_NS = 2**62
# How long the soft deadline is before the hard one.
SOFT_MARGIN_NS = round((timing.KEY_HARD_TERMINATE_AFTER_S - timing.KEY_SOFT_TERMINATE_AFTER_S) * 1e9)

log = structlog.get_logger("plane.executor")


class RequestHandler:
    """Handles requests.

    Args:
        runtime: executes the backends.
        enforcer: kills backends at their hard deadlines, and all backends if this process ends.
    """

    def __init__(self, runtime: Runtime, enforcer: DeadlineEnforcer) -> None:
        self._runtime = runtime
        self._enforcer = enforcer
        self._spawns: dict[str, asyncio.Task[int]] = {}
        self._orphans_removed = asyncio.Event()

    async def remove_orphans(self) -> None:
        """Remove the backends that a former executor of this socket left running. No backend is started before.

        Raises:
            BackendFailed: it is not known whether there are any; try again.
        """
        if orphans := await self._runtime.remove_orphans(()):
            log.warning("orphaned backends terminated", backends=orphans)
        self._orphans_removed.set()

    async def handle(self, request: ExecutorRequest) -> ExecutorResponse:
        """Execute a request and return the response."""
        match request.content:
            case DockerExecutable() as executable:
                return ExecutorResponse(prepare_result=await self._prepare(executable))
            case (str() as backend_id, bool() as hard):
                return ExecutorResponse(terminate_result=await self._terminate(backend_id, hard=hard))
            case (str() as backend_id, int() as hard_deadline_ns):
                if backend_id in self._spawns:
                    self._enforce(backend_id, hard_deadline_ns)
                return ExecutorResponse(renew_result=UnitOutcome(ok=None))
            case (str() as backend_id, str() as address):
                return ExecutorResponse(wait_for_backend_result=await self._wait(backend_id, address))
            case (backend_id, executable, key, static_token):
                return ExecutorResponse(spawn_result=await self._spawn(backend_id, executable, key, static_token))
        raise AssertionError("unreachable: every variant is one of these")

    async def _prepare(self, executable: DockerExecutable) -> UnitOutcome:
        try:
            await self._runtime.prepare(self._to_runtime(executable))
        except BackendFailed as error:
            return UnitOutcome(err=str(error))
        return UnitOutcome(ok=None)

    async def _spawn(
        self, backend_id: str, executable: DockerExecutable, key: LeasedKey | None, static_token: str | None
    ) -> SpawnOutcome:
        try:
            # Folders and control groups have this name.
            check_name(backend_id, Prefix.BACKEND)
        except InvalidName as error:
            return SpawnOutcome(err=f"backend: {error}")
        spawn = self._spawns.get(backend_id)
        if spawn is None:
            # A task of its own, which continues if the drone disconnects: the drone repeats the request, or terminates
            # the backend.
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
                await self._orphans_removed.wait()
        except TimeoutError:
            raise BackendFailed(
                "the executor is still removing the backends of its former process; try again"
            ) from None
        hard_ns = _hard_deadline_ns(key)
        # An original drone sends no deadline. Its backends end with this executor at the latest.
        self._enforce(backend_id, NEVER_NS if hard_ns is None else hard_ns)
        await self._enforcer.wait_confirmed()
        request = SpawnRequest(backend_id, self._to_runtime(executable), key, static_token, hard_ns)
        return await self._runtime.spawn(request)

    def _enforce(self, backend_id: str, hard_ns: int) -> None:
        self._enforcer.enforce(backend_id, hard_ns - SOFT_MARGIN_NS, hard_ns)

    async def _terminate(self, backend_id: str, *, hard: bool) -> TerminateOutcome:
        if spawn := self._spawns.get(backend_id):
            await asyncio.wait([spawn])
        try:
            if await self._runtime.terminate(backend_id, hard=hard):
                return TerminateOutcome(ok=True)
            # This process did not start it.
            await self._runtime.remove_orphan(backend_id)
        except BackendFailed as error:
            return TerminateOutcome(err=str(error))
        return TerminateOutcome(ok=False)

    async def _wait(self, backend_id: str, address: str) -> WaitOutcome:
        try:
            await self._runtime.wait_for_backend(backend_id, *parse_socket_address(address))
        except StartupTimedOut:
            return WaitOutcome(err="StartupTimeout")
        except (PlaneError, ValueError) as error:
            return WaitOutcome(err=OtherFailure(other=str(error)))
        return WaitOutcome(ok=None)

    def exit_event(self, backend_id: str, exit_code: int | None, message: str | None) -> ExecutorResponse:
        """Handle an exit and return the event for the drone. The protocol does not transfer ``message``."""
        self._spawns.pop(backend_id, None)
        self._enforcer.release(backend_id)
        return ExecutorResponse(terminate_event=TerminateEvent(backend_id, exit_code))

    def metrics_event(self, metrics: BackendMetrics) -> ExecutorResponse:
        """Return the event for the drone with a backend's metrics."""
        return ExecutorResponse(metrics_message=metrics)

    def _to_runtime(self, executable: DockerExecutable) -> Any:
        """Convert an executable for the runtime. For the process runtime, the "image" is a command line."""
        if self._runtime.name != ProcessRuntime.name:
            return codec.to_builtins(executable)
        try:
            command = shlex.split(executable.image)
        except ValueError as error:
            raise BackendFailed(
                f"executable.image: not a valid command line for the process runtime: {error}"
            ) from None
        return {
            "command": command,
            "env": executable.env,
            "resource_limits": msgspec.to_builtins(executable.resource_limits),
            "mount": executable.mount,
        }


def _hard_deadline_ns(key: LeasedKey | None) -> int | None:
    """Return the hard deadline (CLOCK_BOOTTIME) that the drone sent; None from an original drone, which sends none."""
    return None if key is None or key.hard_deadline_ns is UNSET else key.hard_deadline_ns
