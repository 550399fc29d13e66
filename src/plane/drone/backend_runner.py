"""Drive one backend through its lifecycle: store each state, do its work, enter the next state.

`plane.decisions.backends.lifecycle` has the order of states. A state is stored before its work begins, except for
states of termination while the store is not writable. Entering a state cancels the work of the former one. The backend
manager orders terminations; the runtime reports the exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from plane.decisions.backends.lifecycle import (
    LIFECYCLE,
    Work,
    to_hard_terminating,
    to_terminated,
    to_terminating,
)
from plane.drone.event_recorder import EventRecorder
from plane.protocol.addresses import format_socket_address, parse_socket_address
from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    Loading,
    Ready,
    Scheduled,
    Starting,
    Terminated,
    Terminating,
    TerminationKind,
    TerminationReason,
    Waiting,
)
from plane.protocol.drone_messages import SpawnOrder
from plane.runtime.base import BackendFailed, Runtime, SpawnRequest, StartupTimedOut
from plane.tasks import end_tasks
from plane.tracing.span import Span, child

__all__ = ["BackendRunner"]

# The delay between attempts to terminate a backend whose runtime does not respond.
RETRY_FIRST_S = 0.5
RETRY_FACTOR = 2.0
RETRY_CAP_S = 30.0

# What a runtime does before it starts a backend, as the name of a span.
PREPARE_STEPS = {"docker": "pull image"}

Transition = Callable[[BackendState], BackendState]

log = structlog.get_logger("plane.drone")


class BackendRunner:
    """One backend of this drone, from its spawn action to `terminated`.

    Args:
        order: None: the order of a former process's backend is unknown, so it can only be terminated.
        state: the state in which a former process of this drone left it; None: it is new.
        hard_deadline_ns: returns the hard deadline of its lease (CLOCK_BOOTTIME), or None if no lease is known.
        span: measures its start, if that is traced; it is ended here.
    """

    def __init__(
        self,
        backend_id: str,
        order: SpawnOrder | None,
        state: BackendState | None = None,
        *,
        recorder: EventRecorder,
        runtime: Runtime,
        ip: str,
        hard_deadline_ns: Callable[[], int | None],
        span: Span | None = None,
    ) -> None:
        self.backend_id = backend_id
        self.order = order
        self.state: BackendState = state or Scheduled()
        self._recorder = recorder
        self._runtime = runtime
        self._ip = ip
        self._hard_deadline_ns = hard_deadline_ns
        self._span = span
        # The executable of the order, until `Runtime.prepare` returns the one to spawn.
        self._executable: Any = None if order is None else order.executable
        # Bounded by the number of events: orders are few, and a backend exits once.
        self._transitions: asyncio.Queue[tuple[Transition, asyncio.Event]] = asyncio.Queue()
        # The recording of `starting`, which continues while the runtime starts the backend.
        self._recording: asyncio.Task[None] | None = None
        # Why it failed, for people; part of `terminated`.
        self._message: str | None = None

    async def begin(self) -> None:
        """Store the first states and return once they are durable.

        Raises:
            StoreUnwritable: nothing was stored.
        """
        assert self.order is not None
        # `scheduled` has no work, so the state that follows is stored with it, which saves one sync of the disk.
        await self._recorder.begin(self.backend_id, [self.state, Loading()], self.order)
        self.state = Loading()
        log.info("backend state", backend=self.backend_id, status=str(self.state.status))

    def end_span(self, failure: str | None) -> None:
        """End the measurement of its start, unless it has ended."""
        span, self._span = self._span, None
        if span is not None:
            if failure is not None:
                span.fail(failure)
            span.end()

    async def order_termination(self, kind: TerminationKind, reason: TerminationReason) -> None:
        """Enter `terminating` or `hard-terminating`. Return once that state, or a later one, is durable."""
        transition = to_terminating if kind is TerminationKind.SOFT else to_hard_terminating
        await self._apply(lambda state: transition(state, reason))
        await self._recorder.wait_durable(self.backend_id)

    def on_exit(self, exit_code: int | None, message: str | None) -> None:
        """Handle the exit of the backend's process. The message is dropped if the exit was ordered."""

        def ended(state: BackendState) -> BackendState:
            self._message = self._message or (None if isinstance(state, Terminating) else message)
            return to_terminated(state, exit_code, self._message)

        self._transitions.put_nowait((ended, asyncio.Event()))

    async def _apply(self, transition: Transition) -> None:
        if isinstance(self.state, Terminated):
            return
        applied = asyncio.Event()
        self._transitions.put_nowait((transition, applied))
        await applied.wait()

    async def run(self) -> None:
        """Drive the backend until it is terminated. Call `begin` before."""
        try:
            await self._until_terminated()
        finally:
            if self._recording is not None:
                await end_tasks([self._recording])
        while not self._transitions.empty():
            self._transitions.get_nowait()[1].set()
        log.info("backend ended", backend=self.backend_id, message=self._message)

    async def _until_terminated(self) -> None:
        while not isinstance(self.state, Terminated):
            work = asyncio.create_task(self._work())
            try:
                await self._until_next_state(work)
            finally:
                work.cancel()
                await asyncio.wait([work])

    async def _until_next_state(self, work: asyncio.Task[BackendState]) -> None:
        """Return once a later state is entered, by the outcome of the work, by an order or by the exit."""
        while True:
            ordered = asyncio.ensure_future(self._transitions.get())
            await asyncio.wait([work, ordered], return_when=asyncio.FIRST_COMPLETED)
            if not ordered.done():
                ordered.cancel()
                await asyncio.wait([ordered])
                await self._enter(work.result())
                return
            transition, applied = ordered.result()
            entered = await self._enter(transition(self.state))
            applied.set()
            if entered:
                return

    async def _enter(self, state: BackendState) -> bool:
        """Record and enter a state. Return False if it is not later than the current one."""
        if state.status.number <= self.state.status.number:
            return False
        self.state = state
        if isinstance(state, Starting):
            # Recorded concurrently with the start. That is safe: the order is durable, and a drone that finds `loading`
            # in its store removes what may run before it starts the backend again.
            self._recording = asyncio.create_task(self._recorder.record(self.backend_id, state))
        else:
            await self._wait_starting_recorded()
            handle = self._runtime.handle(self.backend_id) if isinstance(state, Waiting) else None
            await self._recorder.record(self.backend_id, state, handle)
        if state.status.number >= BackendStatus.READY.number:
            self.end_span(None if isinstance(state, Ready) else self._message or str(state.status))
        log.info("backend state", backend=self.backend_id, status=str(state.status))
        return True

    async def _wait_starting_recorded(self) -> None:
        if self._recording is not None:
            await self._recording
            self._recording = None

    async def _work(self) -> BackendState:
        """Do the work of the current state and return the next state.

        Wait forever if only an order or the exit leads to the next state.
        """
        work = LIFECYCLE[self.state.status].work
        if work not in (Work.STOP, Work.KILL):
            # A start must not be forgotten in a crash, so its state is durable first. A termination does not wait: it
            # must proceed on a full disk too.
            await self._recorder.wait_durable(self.backend_id)
        try:
            match self.state:
                case Scheduled():
                    return Loading()
                case Loading() if self.order is not None:
                    with child(self._span, PREPARE_STEPS.get(self._runtime.name, "check executable")):
                        self._executable = await self._runtime.prepare(self.order.executable)
                    return Starting()
                case Starting() if self.order is not None:
                    order, hard_deadline_ns = self.order, self._hard_deadline_ns()
                    request = SpawnRequest(
                        self.backend_id, self._executable, order.key, order.static_token, hard_deadline_ns
                    )
                    with child(self._span, "process start"):
                        port = await self._runtime.spawn(request)
                    return Waiting(address=format_socket_address(self._ip, port))
                case Waiting(address=address):
                    with child(self._span, "wait for readiness"):
                        await self._runtime.wait_for_backend(self.backend_id, *parse_socket_address(address))
                    return Ready(address=address)
                case _:
                    if work in (Work.STOP, Work.KILL) and not await self._terminate(hard=work is Work.KILL):
                        return to_terminated(self.state, message=self._message)
        except BackendFailed as error:
            return self._failed(error)
        except Exception as error:
            log.exception("backend failed unexpectedly", backend=self.backend_id)
            return self._failed(BackendFailed(f"internal error of the drone: {error!r}; see the drone's log"))
        await asyncio.Event().wait()  # until an order or the exit
        raise AssertionError("unreachable")

    def _failed(self, error: BackendFailed) -> BackendState:
        log.warning("backend failed", backend=self.backend_id, status=str(self.state.status), error=str(error))
        self._message = str(error)
        if not isinstance(self.state, Waiting):
            return to_terminated(self.state, message=self._message)
        timed_out = isinstance(error, StartupTimedOut)
        return to_hard_terminating(
            self.state,
            TerminationReason.STARTUP_TIMEOUT if timed_out else TerminationReason.INTERNAL_ERROR,
        )

    async def _terminate(self, *, hard: bool) -> bool:
        """Let the runtime terminate the backend, retrying until it responds. Return False if it was not running."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                return await self._runtime.terminate(self.backend_id, hard=hard)
            except BackendFailed as error:
                log.warning("backend not terminated; retrying", backend=self.backend_id, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * RETRY_FACTOR, RETRY_CAP_S)
