"""Applies actions to the backends of this drone, in order for each backend, at the same time for different ones.

Owns the runners, the keys and the runtime. `plane.drone.agent` brings the actions. Rule: page 4, "Executor".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from plane.decisions.backend_lifecycle import to_terminated
from plane.drone.backend_runner import BackendRunner
from plane.drone.clock import DroneClock
from plane.drone.key_keeper import KeyKeeper
from plane.drone.state_store import StateStore, UnknownBackend
from plane.protocol.backend_state import (
    Ready,
    Scheduled,
    Terminated,
    TerminationKind,
    TerminationReason,
)
from plane.protocol.drone_messages import BackendAction, SpawnOrder, TerminateOrder
from plane.runtime.base import Runtime

__all__ = ["Executor"]

log = structlog.get_logger("plane.drone")


class Executor:
    """The backends of one drone. `runtime` is set before anything else is called."""

    runtime: Runtime

    def __init__(self, store: StateStore, clock: DroneClock, ip: str) -> None:
        self.keys = KeyKeeper(clock, self._key_expired)
        self._store = store
        self._clock = clock
        self._ip = ip
        self._runners: dict[str, BackendRunner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def exited(self, backend_id: str, exit_code: int | None, message: str | None) -> None:
        """The runtime saw a backend end."""
        runner = self._runners.get(backend_id)
        if runner is not None:
            runner.exited(exit_code, message)

    async def forget_former_backends(self) -> None:
        """End what an earlier process of this drone left running, and record that."""
        for backend_id, state in (await self._store.active_backends()).items():
            log.warning("ending a backend of this drone's former process", backend=backend_id)
            await self.runtime.remove_leftover(backend_id)
            ended = to_terminated(state, message="its drone was restarted")
            await self._store.register_event(backend_id, ended, self._clock.now())

    async def apply(self, action: BackendAction) -> bool:
        """Apply one action; returns once that is durable. False: not applied, do not acknowledge it.

        An action that was applied before does nothing.
        """
        match action.action.content:
            case SpawnOrder() as order:
                return await self._spawn(action.backend_id, order)
            case TerminateOrder(kind, reason):
                await self._terminate(action.backend_id, kind, reason)
        return True

    async def _spawn(self, backend_id: str, order: SpawnOrder) -> bool:
        if self._stopping:
            return False
        if backend_id in self._runners or await self._is_known(backend_id):
            return True
        if refusal := self._refusal(order):
            log.warning("spawn refused", backend=backend_id, reason=refusal)
            await self._store.register_event(backend_id, to_terminated(Scheduled(), message=refusal), self._clock.now())
            return True
        runner = BackendRunner(
            backend_id, order, store=self._store, runtime=self.runtime, clock=self._clock, ip=self._ip
        )
        self._runners[backend_id] = runner
        self.keys.hold(backend_id, order.key.deadlines)
        await runner.begin()
        self._own(self._run(runner))
        return True

    def _refusal(self, order: SpawnOrder) -> str | None:
        """Why the order comes too late, or must not be followed."""
        if self._clock.now() >= order.key.deadlines.soft_terminate_at:
            return "the order to start it came when its key's lease was nearly over; connect again"
        for runner in self._runners.values():
            held, wanted = runner.order.key.key, order.key.key
            if (held.namespace, held.name) == (wanted.namespace, wanted.name):
                return f"its key is still held here by backend {runner.backend_id}, which is ending; connect again"
        return None

    async def _terminate(self, backend_id: str, kind: TerminationKind, reason: TerminationReason) -> None:
        runner = self._runners.get(backend_id)
        if runner is not None:
            await runner.order_end(kind, reason)
            return
        try:
            if isinstance(await self._store.backend_state(backend_id), Terminated):
                return
        except UnknownBackend:
            log.warning("told to end a backend that this drone does not know", backend=backend_id)
        await self.runtime.remove_leftover(backend_id)
        lost = Terminated(last_status=Ready(address="").status, reason=TerminationReason.LOST)
        await self._store.register_event(backend_id, lost, self._clock.now())

    async def _is_known(self, backend_id: str) -> bool:
        try:
            await self._store.backend_state(backend_id)
        except UnknownBackend:
            return False
        return True

    async def _run(self, runner: BackendRunner) -> None:
        try:
            await runner.run()
        finally:
            self.keys.release(runner.backend_id)
            del self._runners[runner.backend_id]

    def _key_expired(self, backend_id: str, kind: TerminationKind) -> None:
        if runner := self._runners.get(backend_id):
            self._own(runner.order_end(kind, TerminationReason.KEY_EXPIRED))

    async def end_all(self, grace_s: float) -> None:
        """Take no more work, ask every backend to stop, kill those that have not after ``grace_s``."""
        self._stopping = True
        for kind in TerminationKind:
            for runner in list(self._runners.values()):
                self._own(runner.order_end(kind, TerminationReason.LOST))
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a backend's task failed", exc_info=error)
