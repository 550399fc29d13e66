"""Applies actions to the backends of this drone.

Owns the actions that are being applied, the runners, the keys and the runtime. `plane.drone.agent` brings the actions.
Rule: page 4, "BackendManager".
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial

import structlog

from plane import timing
from plane.decisions.backends.adoption import Adoption, adoption, was_started
from plane.decisions.backends.lifecycle import to_terminated
from plane.decisions.keys.lease import foreign_lease_reason
from plane.drone.action_queue import ActionQueue
from plane.drone.backend_runner import BackendRunner
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder, StoreUnwritable
from plane.drone.lease_renewer import LeaseRenewer
from plane.drone.state_store import StateStore, StoredRun, UnknownBackend
from plane.protocol.backend_state import (
    BackendState,
    Loading,
    Ready,
    Scheduled,
    Terminated,
    TerminationKind,
    TerminationReason,
)
from plane.protocol.drone_messages import BackendAction, SpawnOrder, TerminateOrder
from plane.protocol.errors import InvalidName
from plane.protocol.logs import LogPage
from plane.protocol.names import Prefix, check_name
from plane.runtime.base import AdoptionResult, BackendFailed, DeadlineEnforcer, DeadlinesNotEnforced, Runtime
from plane.runtime.logs.collector import LogsNotRetained
from plane.tasks import OwnedTasks

__all__ = ["BackendManager"]

TOO_LATE = "the order to start it came when its key's lease was nearly over; connect again"
# Between tries to learn from a runtime what it still runs, and between writings of renewed deadlines.
ADOPT_RETRY_S = 1.0
DEADLINES_INTERVAL_S = 1.0
# How long an order waits for the end of orphaned backends; it is sent again.
ORPHANS_TIMEOUT_S = 5.0
NOT_RENEWED = "its drone was restarted before it was started, and its key's lease could not be renewed; connect again"
# Whoever asked for output is not there any more after so long.
ADOPTION_AWAITED_S = 60.0
# Between looks for the output of what is on its way.
LOGS_POLL_S = 0.25

log = structlog.get_logger("plane.drone")


class BackendManager:
    """The backends of one drone. `runtime` is set before anything else is called.

    ``enforcer``: kills backends at their hard deadlines should this process not do it.
    """

    runtime: Runtime

    def __init__(
        self, store: StateStore, recorder: EventRecorder, clock: DroneClock, ip: str, enforcer: DeadlineEnforcer
    ) -> None:
        self.keys = LeaseRenewer(clock, self._key_expired, enforcer, self._lease_extended)
        self.actions = ActionQueue(self.apply)
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._ip = ip
        self._runners: dict[str, BackendRunner] = {}
        # Backends of the former process of which it is not known yet whether they run.
        self._adopting: dict[str, asyncio.Task[None]] = {}
        self._tasks = OwnedTasks(lambda error: log.error("a backend's task failed", exc_info=error))
        self._stopping = False
        # Set once nothing runs any more that carries this drone's identity and is not in its store.
        self._orphans_ended = asyncio.Event()
        self._is_accepted = False

    def exited(self, backend_id: str, exit_code: int | None, message: str | None) -> None:
        """The runtime saw a backend end."""
        runner = self._runners.get(backend_id)
        if runner is not None:
            runner.exited(exit_code, message)

    async def terminate_former_backends(self) -> None:
        """End what an earlier process of this drone left running, and record that."""
        for backend_id, run in (await self._store.active_runs()).items():
            log.warning("ending a backend of this drone's former process", backend=backend_id)
            await self.runtime.remove_orphan(backend_id)
            await self._recorder.record(backend_id, to_terminated(run.state, message="its drone was restarted"))

    async def adopt_backends(self) -> None:
        """Begin to take over what an earlier process of this drone left running."""
        runs = await self._store.active_runs()
        for backend_id, run in runs.items():
            if run.order is not None and self._clock.continues:
                self.keys.enforce(backend_id, run.order.key.deadlines)
        for backend_id, run in runs.items():
            task = self._tasks.start(self._adopt(backend_id, run))
            self._adopting[backend_id] = task

    async def _adopt(self, backend_id: str, run: StoredRun) -> None:
        """Learn from the runtime what there is of a backend, however often that takes, and go on with it."""
        lease_known = run.order is not None and self._clock.continues
        try:
            while True:
                try:
                    found = await self._look_for(backend_id, run)
                    break
                except BackendFailed as error:
                    log.warning("cannot see whether backend runs; trying again", backend=backend_id, error=str(error))
                await asyncio.sleep(ADOPT_RETRY_S)
            verdict = adoption(run.state, running=found.running, lease_known=lease_known)
            log.info("backend of this drone's former process", backend=backend_id, verdict=verdict.name)
            if verdict is Adoption.ENDED:
                message = found.message or "it ended while its drone was restarted"
                await self._recorder.record(backend_id, to_terminated(run.state, found.exit_code, message))
                self.keys.release(backend_id)
                return
            runner = self._runner(backend_id, run.order, run)
            if verdict is Adoption.END:
                self._tasks.start(runner.order_end(TerminationKind.SOFT, TerminationReason.KEY_EXPIRED))
            elif run.order is not None:
                self.keys.hold(backend_id, run.order.key.deadlines)
            if verdict is Adoption.START_OVER and not await self.keys.until_renewed(backend_id):
                await self._recorder.record(backend_id, to_terminated(run.state, message=NOT_RENEWED))
                self._forget(backend_id)
                return
            self._tasks.start(self._run(runner))
        finally:
            del self._adopting[backend_id]

    async def _look_for(self, backend_id: str, run: StoredRun) -> AdoptionResult:
        if was_started(run.state):
            return await self.runtime.adopt(backend_id, run.handle)
        await self.runtime.remove_orphan(backend_id)
        return AdoptionResult(running=False)

    async def apply(self, action: BackendAction) -> bool:
        """Apply one action; returns once that is durable. False: not applied, do not acknowledge it.

        An action that was applied before does nothing.
        """
        if adopting := self._adopting.get(action.backend_id):
            await asyncio.wait([adopting])
        match action.action.content:
            case SpawnOrder() as order:
                return await self._spawn(action.backend_id, order)
            case TerminateOrder(kind, reason):
                await self._terminate(action.backend_id, kind, reason)
        return True

    async def _spawn(self, backend_id: str, order: SpawnOrder) -> bool:
        if self._stopping or not await self._no_orphans():
            return False
        if backend_id in self._runners:
            return True
        # How it ended may still be in memory only.
        await self._recorder.durable(backend_id)
        state = await self._stored_state(backend_id)
        if state is not None and not isinstance(state, Loading):
            return True
        # It is new, or the disk stored it and failed all the same: then nothing has been started.
        if refusal := self._refusal(backend_id, order):
            return await self._refuse(backend_id, state or Scheduled(), refusal)
        runner = self._runner(backend_id, order)
        try:
            self.keys.enforce(backend_id, order.key.deadlines)
            await self.keys.enforced()
            if state is None:
                await runner.begin()
            else:
                runner.state = state
        except BaseException as error:
            self._forget(backend_id)
            if isinstance(error, (DeadlinesNotEnforced, StoreUnwritable)):
                log.warning("order refused for now; it will be sent again", backend=backend_id, error=str(error))
                return False
            raise
        if self._comes_too_late(order):
            # The disk took so long.
            self._forget(backend_id)
            return await self._refuse(backend_id, runner.state, TOO_LATE)
        self.keys.hold(backend_id, order.key.deadlines)
        self._tasks.start(self._run(runner))
        return True

    async def _refuse(self, backend_id: str, state: BackendState, reason: str) -> bool:
        log.warning("spawn refused", backend=backend_id, reason=reason)
        await self._recorder.record(backend_id, to_terminated(state, message=reason))
        await self._recorder.durable(backend_id)
        return True

    async def _no_orphans(self) -> bool:
        try:
            async with asyncio.timeout(ORPHANS_TIMEOUT_S):
                await self._orphans_ended.wait()
        except TimeoutError:
            log.warning("order refused for now: it is not known yet whether orphaned backends run")
            return False
        return True

    def _runner(self, backend_id: str, order: SpawnOrder | None, run: StoredRun | None = None) -> BackendRunner:
        runner = self._runners[backend_id] = BackendRunner(
            backend_id,
            order,
            None if run is None else run.state,
            recorder=self._recorder,
            runtime=self.runtime,
            ip=self._ip,
            hard_deadline_ns=partial(self.keys.hard_deadline_ns, backend_id),
        )
        return runner

    def _refusal(self, backend_id: str, order: SpawnOrder) -> str | None:
        """Why the order comes too late, or must not be followed."""
        if not _is_name(backend_id):
            return f"no backend can be called {backend_id!r}: lower-case letters, digits and dashes only, at most 45"
        if reason := foreign_lease_reason(order.key.deadlines, self._clock.began, self._clock.now()):
            return (
                f"{reason}: the drone's machine was booted, or its state was lost, after it was ordered; connect again"
            )
        if self._comes_too_late(order):
            return TOO_LATE
        for runner in self._runners.values():
            if runner.order is None:
                continue
            held, wanted = runner.order.key.key, order.key.key
            if (held.namespace, held.name) == (wanted.namespace, wanted.name):
                return f"its key is still held here by backend {runner.backend_id}, which is ending; connect again"
        return None

    def _comes_too_late(self, order: SpawnOrder) -> bool:
        return self._clock.now() >= order.key.deadlines.soft_terminate_at

    async def _terminate(self, backend_id: str, kind: TerminationKind, reason: TerminationReason) -> None:
        runner = self._runners.get(backend_id)
        if runner is not None:
            await runner.order_end(kind, reason)
            return
        state = await self._stored_state(backend_id)
        if isinstance(state, Terminated):
            return
        if state is None:
            log.warning("told to end a backend that this drone does not know", backend=backend_id)
        if _is_name(backend_id):
            await self.runtime.remove_orphan(backend_id)
        lost = Terminated(last_status=Ready(address="").status, reason=TerminationReason.LOST)
        await self._recorder.record(backend_id, lost)
        await self._recorder.durable(backend_id)

    async def _stored_state(self, backend_id: str) -> BackendState | None:
        try:
            return await self._store.backend_state(backend_id)
        except UnknownBackend:
            return None

    async def _run(self, runner: BackendRunner) -> None:
        try:
            await runner.run()
        finally:
            self._forget(runner.backend_id)

    def _forget(self, backend_id: str) -> None:
        self.keys.release(backend_id)
        del self._runners[backend_id]

    def _lease_extended(self, backend_id: str, hard_deadline_ns: int) -> None:
        self.runtime.extend(backend_id, hard_deadline_ns)

    def accepted(self) -> None:
        """A controller has accepted this drone: begin to end what carries its identity and is not in its store.

        Called at each message of a controller. A second drone of one name is refused and sent none, and so does not
        end what the first one runs. Nothing is started before.
        """
        if not self._is_accepted:
            self._is_accepted = True
            self._tasks.start(self._end_orphans())

    async def _end_orphans(self) -> None:
        while True:
            try:
                known = {*await self._store.active_runs(), *self._runners}
                if orphans := await self.runtime.remove_orphans(known):
                    log.warning("ended backends that are not in this drone's state store", backends=orphans)
                break
            except BackendFailed as error:
                log.warning("cannot look for orphaned backends; trying again", error=str(error))
            await asyncio.sleep(ADOPT_RETRY_S)
        self._orphans_ended.set()

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """A part of a backend's output, as `plane.runtime.base.Runtime.read_logs` gives it.

        Of a backend of this drone's former process only once it is known again; of one that is on its way to its start,
        which may be waiting for its image, nothing yet.
        """
        if adopting := self._adopting.get(backend_id):
            await asyncio.wait([adopting], timeout=ADOPTION_AWAITED_S)
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            try:
                return await self.runtime.read_logs(backend_id, after, tail, max(0.0, end - loop.time()))
            except LogsNotRetained:
                if backend_id not in self._runners:
                    raise
            if loop.time() >= end:
                return LogPage([], ended=False)
            await asyncio.sleep(LOGS_POLL_S)

    def _key_expired(self, backend_id: str, kind: TerminationKind) -> None:
        if runner := self._runners.get(backend_id):
            self._tasks.start(runner.order_end(kind, TerminationReason.KEY_EXPIRED))

    async def run_maintenance(self) -> None:
        """Store renewed deadlines, and forget what has ended long ago (A17); until cancelled."""
        next_look = next_note = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if renewed := self.keys.take_renewed():
                    await self._store.renewed(renewed)
                if loop.time() >= next_note:
                    next_note = loop.time() + timing.CLOCK_STORE_INTERVAL_S
                    await self._store.store_facts({"clock_last_ms": str(self._clock.now().ms)})
                if loop.time() >= next_look:
                    next_look = loop.time() + timing.ENDED_CLEANUP_INTERVAL_S
                    if forgotten := await self._store.delete_ended(self._clock.now(), timing.ENDED_RETENTION_S):
                        log.info("ended backends forgotten", count=len(forgotten))
            except sqlite3.Error as error:
                log.warning("the state store cannot be written; deadlines are stored later", error=str(error))
            await asyncio.sleep(DEADLINES_INTERVAL_S)

    def refuse_work(self) -> None:
        """Begin nothing new."""
        self._stopping = True

    async def end_all(self, grace_s: float) -> None:
        """Ask every backend to stop, kill those that have not after ``grace_s``; after `refuse_work`."""
        for kind in TerminationKind:
            for runner in list(self._runners.values()):
                self._tasks.start(runner.order_end(kind, TerminationReason.LOST))
            await self._tasks.wait(grace_s)
        await self.leave_all()

    async def leave_all(self) -> None:
        """Stop driving the backends, which run on for the next process of this drone; after `refuse_work`."""
        await self.actions.end()
        await self._tasks.end()


def _is_name(backend_id: str) -> bool:
    """Whether containers and folders may be called so. An original controller does not check it."""
    try:
        check_name(backend_id, Prefix.BACKEND)
    except InvalidName:
        return False
    return True
