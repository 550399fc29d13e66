"""Apply actions to the backends of this drone.

Owns the pending actions, the runners, the leases and the runtime. `plane.drone.agent` delivers the actions. Rules:
`docs/reference/protocol/drone.md`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from functools import partial

import structlog

from plane import timing
from plane.decisions.backends.adoption import AdoptionAction, decide_adoption, was_started
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
    BackendStatus,
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
from plane.tracing.span import Kind, Span, Tracer

__all__ = ["BackendManager"]

FOREIGN = "the drone's machine was booted, or its state was lost, after the order; connect again"
TOO_LATE = "the spawn action arrived when its key's lease had nearly expired; connect again"
NOT_RENEWED = "its drone was restarted before the start, and its key's lease could not be renewed; connect again"
# Between queries of a runtime for what still runs, and between writes of renewed deadlines.
RETRY_INTERVAL_S = 1.0
MAINTENANCE_INTERVAL_S = 1.0
# How long a spawn action waits for the end of orphaned backends; then the controller resends it.
ORPHANS_TIMEOUT_S = 5.0
# How long a request for output waits for the adoption of its backend.
ADOPTION_TIMEOUT_S = 60.0
LOGS_POLL_INTERVAL_S = 0.25

log = structlog.get_logger("plane.drone")


class BackendManager:
    """The backends of one drone.

    Args:
        ip: the address of the backends.
        enforcer: kills backends at their hard deadlines if this process fails to.
        runtime: has been started before any method is called.
        tracer: measures the starts of backends; None if traces are not exported.
        clock_id: of the clock, as in the drone's handshake.

    Attributes:
        leases: the leases of the backends.
        actions: the pending actions.
    """

    def __init__(
        self,
        store: StateStore,
        recorder: EventRecorder,
        clock: DroneClock,
        ip: str,
        enforcer: DeadlineEnforcer,
        runtime: Runtime,
        tracer: Tracer | None = None,
        clock_id: str = "",
    ) -> None:
        self.leases = LeaseRenewer(clock, self._on_lease_expired, enforcer, runtime.extend_deadline)
        self.actions = ActionQueue(self.apply)
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._ip = ip
        self._runtime = runtime
        self._tracer = tracer
        self._clock_id = clock_id
        self._runners: dict[str, BackendRunner] = {}
        # Backends of the former process that are being adopted.
        self._adopting: dict[str, asyncio.Task[None]] = {}
        self._tasks = OwnedTasks(lambda error: log.error("backend task failed", exc_info=error))
        self._stopping = False
        # Set once no backend runs any more that carries this drone's identity and is not in its store.
        self._orphans_removed = asyncio.Event()
        self._is_accepted = False

    def on_exit(self, backend_id: str, exit_code: int | None, message: str | None) -> None:
        """Handle the exit of a backend, which the runtime reports."""
        runner = self._runners.get(backend_id)
        if runner is not None:
            runner.on_exit(exit_code, message)

    def statuses(self) -> Counter[BackendStatus]:
        """Return the number of backends in each status, except terminated ones."""
        return Counter(runner.state.status for runner in self._runners.values())

    async def terminate_former_backends(self) -> None:
        """Terminate the backends that a former process of this drone left running, and record that."""
        for backend_id, run in (await self._store.active_runs()).items():
            log.warning("terminating backend of this drone's former process", backend=backend_id)
            await self._runtime.remove_orphan(backend_id)
            await self._recorder.record(backend_id, to_terminated(run.state, message="its drone was restarted"))

    async def adopt_backends(self) -> None:
        """Begin to adopt the backends that a former process of this drone left running."""
        runs = await self._store.active_runs()
        for backend_id, run in runs.items():
            if run.order is not None and self._clock.continues:
                self.leases.enforce(backend_id, run.order.key.deadlines)
        for backend_id, run in runs.items():
            task = self._tasks.start(self._adopt(backend_id, run))
            self._adopting[backend_id] = task

    async def _adopt(self, backend_id: str, run: StoredRun) -> None:
        """Query the runtime for what runs of a backend until it responds, and carry out the decision."""
        lease_known = run.order is not None and self._clock.continues
        try:
            while True:
                try:
                    found = await self._find(backend_id, run)
                    break
                except BackendFailed as error:
                    log.warning("backend not found in runtime; retrying", backend=backend_id, error=str(error))
                await asyncio.sleep(RETRY_INTERVAL_S)
            action = decide_adoption(run.state, running=found.running, lease_known=lease_known)
            log.info("backend of this drone's former process", backend=backend_id, action=action.name.lower())
            if action is AdoptionAction.MARK_TERMINATED:
                message = found.message or "it ended while its drone was restarted"
                await self._recorder.record(backend_id, to_terminated(run.state, found.exit_code, message))
                self.leases.remove(backend_id)
                return
            runner = self._add_runner(backend_id, run.order, run.state)
            if action is AdoptionAction.TERMINATE:
                self._tasks.start(runner.order_termination(TerminationKind.SOFT, TerminationReason.KEY_EXPIRED))
            elif run.order is not None:
                self.leases.add(backend_id, run.order.key.deadlines)
            if action is AdoptionAction.RESTART and not await self.leases.wait_renewed(backend_id):
                await self._recorder.record(backend_id, to_terminated(run.state, message=NOT_RENEWED))
                self._remove_runner(backend_id)
                return
            self._tasks.start(self._run(runner))
        finally:
            del self._adopting[backend_id]

    async def _find(self, backend_id: str, run: StoredRun) -> AdoptionResult:
        if was_started(run.state):
            return await self._runtime.adopt(backend_id, run.handle)
        await self._runtime.remove_orphan(backend_id)
        return AdoptionResult(running=False)

    async def apply(self, action: BackendAction) -> bool:
        """Apply an action and return once the result is durable. An action that was applied before has no effect.

        Return False if it was not applied and must not be acknowledged.
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
        if self._stopping or not await self._wait_orphans_removed(backend_id):
            return False
        if backend_id in self._runners:
            return True
        # The record of its end may not be stored yet.
        await self._recorder.wait_durable(backend_id)
        state = await self._stored_state(backend_id)
        if state is not None and not isinstance(state, Loading):
            return True
        # The backend is new, or the disk stored it and then reported a failure: either way nothing was started.
        if reason := self._foreign_reason(order):
            # Another drone of this name may have accepted the order before.
            return await self._refuse(
                backend_id, state or Scheduled(), f"{reason}: {FOREIGN}", reason=TerminationReason.LOST
            )
        if refusal := self._refusal(backend_id, order):
            return await self._refuse(backend_id, state or Scheduled(), refusal)
        runner = self._add_runner(backend_id, order, state, self._begin_span(backend_id, order))
        try:
            self.leases.enforce(backend_id, order.key.deadlines)
            await self.leases.wait_enforced()
            if state is None:
                await runner.begin()
        except BaseException as error:
            self._remove_runner(backend_id)
            if isinstance(error, (DeadlinesNotEnforced, StoreUnwritable)):
                _log_not_accepted(backend_id, str(error))
                return False
            raise
        if self._is_too_late(order):
            # The disk was slow.
            self._remove_runner(backend_id)
            return await self._refuse(backend_id, runner.state, TOO_LATE)
        self.leases.add(backend_id, order.key.deadlines)
        self._tasks.start(self._run(runner))
        return True

    async def _refuse(
        self, backend_id: str, state: BackendState, message: str, *, reason: TerminationReason | None = None
    ) -> bool:
        log.warning("spawn refused", backend=backend_id, reason=message)
        await self._recorder.record(backend_id, to_terminated(state, message=message, reason=reason))
        await self._recorder.wait_durable(backend_id)
        return True

    async def _wait_orphans_removed(self, backend_id: str) -> bool:
        try:
            async with asyncio.timeout(ORPHANS_TIMEOUT_S):
                await self._orphans_removed.wait()
        except TimeoutError:
            _log_not_accepted(backend_id, "orphaned backends may still run")
            return False
        return True

    def _begin_span(self, backend_id: str, order: SpawnOrder) -> Span | None:
        """Measure the start of a backend whose connect request is traced."""
        if self._tracer is None or not isinstance(order.traceparent, str):
            return None
        span = self._tracer.start("start backend", Kind.SERVER, order.traceparent)
        if span is not None:
            span.set("plane.backend", backend_id)
            span.set("plane.runtime", self._runtime.name)
        return span

    def _add_runner(
        self, backend_id: str, order: SpawnOrder | None, state: BackendState | None, span: Span | None = None
    ) -> BackendRunner:
        runner = self._runners[backend_id] = BackendRunner(
            backend_id,
            order,
            state,
            recorder=self._recorder,
            runtime=self._runtime,
            ip=self._ip,
            hard_deadline_ns=partial(self.leases.hard_deadline_ns, backend_id),
            span=span,
        )
        return runner

    def _foreign_reason(self, order: SpawnOrder) -> str | None:
        """Return why the deadlines of an order are not of this drone's clock; None if they are."""
        # Times alone do not show it: the clock of another drone of this name may be ahead of this one.
        if isinstance(order.clock, str) and order.clock != self._clock_id:
            return "its lease is of another drone's clock"
        return foreign_lease_reason(order.key.deadlines, self._clock.began, self._clock.now())

    def _refusal(self, backend_id: str, order: SpawnOrder) -> str | None:
        """Return why a spawn order is refused: it is late, or invalid, or its key is still held here."""
        if not _is_name(backend_id):
            return (
                f"{backend_id!r} is not a valid backend id; it has lower-case letters, digits and dashes only, and at "
                "most 45 characters"
            )
        if self._is_too_late(order):
            return TOO_LATE
        for runner in self._runners.values():
            if runner.order is None:
                continue
            held, wanted = runner.order.key.key, order.key.key
            if (held.namespace, held.name) == (wanted.namespace, wanted.name):
                return f"its key is still held here by backend {runner.backend_id}, which is ending; connect again"
        return None

    def _is_too_late(self, order: SpawnOrder) -> bool:
        return self._clock.now() >= order.key.deadlines.soft_terminate_at

    async def _terminate(self, backend_id: str, kind: TerminationKind, reason: TerminationReason) -> None:
        runner = self._runners.get(backend_id)
        if runner is not None:
            await runner.order_termination(kind, reason)
            return
        state = await self._stored_state(backend_id)
        if isinstance(state, Terminated):
            return
        if state is None:
            log.warning("terminate action for an unknown backend", backend=backend_id)
        if _is_name(backend_id):
            await self._runtime.remove_orphan(backend_id)
        lost = Terminated(last_status=Ready(address="").status, reason=TerminationReason.LOST)
        await self._recorder.record(backend_id, lost)
        await self._recorder.wait_durable(backend_id)

    async def _stored_state(self, backend_id: str) -> BackendState | None:
        try:
            return await self._store.backend_state(backend_id)
        except UnknownBackend:
            return None

    async def _run(self, runner: BackendRunner) -> None:
        try:
            await runner.run()
        finally:
            self._remove_runner(runner.backend_id)

    def _remove_runner(self, backend_id: str) -> None:
        self.leases.remove(backend_id)
        self._runners.pop(backend_id).end_span("not started")

    def on_accepted(self) -> None:
        """Begin to remove orphans: backends that carry this drone's identity and are not in its store.

        Called at each message of a controller, which shows that the controller has accepted this drone under its name.
        A refused second drone with the same name receives no message, and so does not end the backends of the first
        one. No backend is started before the orphans are removed.
        """
        if not self._is_accepted:
            self._is_accepted = True
            self._tasks.start(self._remove_orphans())

    async def _remove_orphans(self) -> None:
        while True:
            try:
                known = {*await self._store.active_runs(), *self._runners}
                if orphans := await self._runtime.remove_orphans(known):
                    log.warning("orphaned backends terminated", backends=orphans)
                break
            except BackendFailed as error:
                log.warning("orphaned backends not listed; retrying", error=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)
        self._orphans_removed.set()

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Return a page of a backend's output, see `plane.runtime.base.Runtime.read_logs`.

        The output of a former process's backend can be read once the backend is adopted. The output of a backend that
        has not been started yet, for example because its image is being pulled, is empty.
        """
        if adopting := self._adopting.get(backend_id):
            await asyncio.wait([adopting], timeout=ADOPTION_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            try:
                return await self._runtime.read_logs(backend_id, after, tail, max(0.0, end - loop.time()))
            except LogsNotRetained:
                if backend_id not in self._runners:
                    raise
            if loop.time() >= end:
                return LogPage([], ended=False)
            await asyncio.sleep(LOGS_POLL_INTERVAL_S)

    def _on_lease_expired(self, backend_id: str, kind: TerminationKind) -> None:
        if runner := self._runners.get(backend_id):
            self._tasks.start(runner.order_termination(kind, TerminationReason.KEY_EXPIRED))

    async def run_maintenance(self) -> None:
        """Store renewed deadlines and the clock, and delete expired backends from the store, until cancelled."""
        next_deletion = next_clock_write = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if renewed := self.leases.take_renewed():
                    await self._store.store_deadlines(renewed)
                if loop.time() >= next_clock_write:
                    next_clock_write = loop.time() + timing.CLOCK_STORE_INTERVAL_S
                    await self._store.store_facts({"clock_last_ms": str(self._clock.now().ms)})
                if loop.time() >= next_deletion:
                    next_deletion = loop.time() + timing.ENDED_CLEANUP_INTERVAL_S
                    if deleted := await self._store.delete_ended(self._clock.now(), timing.ENDED_RETENTION_S):
                        log.info("ended backends deleted from state store", count=len(deleted))
            except sqlite3.Error as error:
                log.warning("state store not writable; retrying", error=str(error))
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)

    def refuse_work(self) -> None:
        """Start no more backends."""
        self._stopping = True

    async def terminate_all(self, grace_s: float) -> None:
        """Stop all backends, and kill those that still run after ``grace_s``. Call `refuse_work` before."""
        for kind in TerminationKind:
            for runner in list(self._runners.values()):
                self._tasks.start(runner.order_termination(kind, TerminationReason.LOST))
            await self._tasks.wait(grace_s)
        await self.detach_all()

    async def detach_all(self) -> None:
        """Stop driving the backends, and leave them to the drone's next process. Call `refuse_work` before."""
        await self.actions.end()
        await self._tasks.end()


def _log_not_accepted(backend_id: str, reason: str) -> None:
    log.warning("spawn action not accepted; the controller will resend it", backend=backend_id, reason=reason)


def _is_name(backend_id: str) -> bool:
    """Return whether containers and folders may have this name. An original controller does not check it."""
    try:
        check_name(backend_id, Prefix.BACKEND)
    except InvalidName:
        return False
    return True
