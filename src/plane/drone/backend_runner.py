"""Drives one backend through its life: stores each state, does what it asks for, moves to the next.

What follows what is in `plane.decisions.backends.lifecycle`. A state is stored before it is acted on, but for the
states of its end while the store cannot be written; entering one cancels what the former had under way. The agent
gives orders; the runtime tells of the exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
from plane.runtime.base import BackendFailed, Runtime, StartupTimedOut
from plane.tasks import end_tasks

__all__ = ["BackendRunner"]

# Between tries to end a backend whose runtime does not answer.
RETRY_FIRST_S = 0.5
RETRY_FACTOR = 2.0
RETRY_CAP_S = 30.0

Transition = Callable[[BackendState], BackendState]

log = structlog.get_logger("plane.drone")


class BackendRunner:
    """One backend of this drone, from its spawn action to `terminated`.

    Args:
        order: what was ordered; None for one of a former process whose order is not known, which can only be ended.
        state: the state in which a former process of this drone left it.
        hard_deadline_ns: until when its key is held (CLOCK_BOOTTIME); None: no lease is known.
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
    ) -> None:
        self.backend_id = backend_id
        self.order = order
        self.state: BackendState = state or Scheduled()
        self._recorder = recorder
        self._runtime = runtime
        self._ip = ip
        self._hard_deadline_ns = hard_deadline_ns
        # Bounded by what exists: orders are few, a backend exits once.
        self._transitions: asyncio.Queue[tuple[Transition, asyncio.Event]] = asyncio.Queue()
        # The recording of `starting`, which continues while the runtime starts the backend.
        self._recording: asyncio.Task[None] | None = None
        # Why it failed, for people; part of `terminated`.
        self._message: str | None = None

    async def begin(self) -> None:
        """Store the first states; returns once they are durable.

        Raises:
            StoreUnwritable: nothing has begun.
        """
        assert self.order is not None
        # `scheduled` asks for no work, so what follows it is stored with it: one sync of the disk less.
        await self._recorder.begin(self.backend_id, [self.state, Loading()], self.order)
        self.state = Loading()
        log.info("backend state", backend=self.backend_id, status=str(self.state.status))

    async def order_end(self, kind: TerminationKind, reason: TerminationReason) -> None:
        """Move to terminating or hard-terminating; returns once that, or a later state, is durable."""
        to_end = to_terminating if kind is TerminationKind.SOFT else to_hard_terminating
        await self._apply(lambda state: to_end(state, reason))
        await self._recorder.durable(self.backend_id)

    def exited(self, exit_code: int | None, message: str | None) -> None:
        """The runtime saw the backend's process end. How it did needs no words if the end was ordered."""

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
        """Drive the backend to its end; after `begin`."""
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
                await self._until_risen(work)
            finally:
                work.cancel()
                await asyncio.wait([work])

    async def _until_risen(self, work: asyncio.Task[BackendState]) -> None:
        """Return once the state has risen, by the work's outcome or by an order or exit; work goes on until then."""
        while True:
            ordered = asyncio.ensure_future(self._transitions.get())
            await asyncio.wait([work, ordered], return_when=asyncio.FIRST_COMPLETED)
            if not ordered.done():
                ordered.cancel()
                await asyncio.wait([ordered])
                await self._enter(work.result())
                return
            transition, applied = ordered.result()
            risen = await self._enter(transition(self.state))
            applied.set()
            if risen:
                return

    async def _enter(self, state: BackendState) -> bool:
        """Record and take on a state; False if it is no rise."""
        if state.status.number <= self.state.status.number:
            return False
        self.state = state
        if isinstance(state, Starting):
            # The order is durable, and a drone that finds `loading` in its store ends what runs before it starts over.
            self._recording = asyncio.create_task(self._recorder.record(self.backend_id, state))
        else:
            await self._starting_recorded()
            handle = self._runtime.handle(self.backend_id) if isinstance(state, Waiting) else None
            await self._recorder.record(self.backend_id, state, handle)
        log.info("backend state", backend=self.backend_id, status=str(state.status))
        return True

    async def _starting_recorded(self) -> None:
        if self._recording is not None:
            await self._recording
            self._recording = None

    async def _work(self) -> BackendState:
        """Do what the state asks for; returns the state that follows. Waits for ever where only orders lead on."""
        work = LIFECYCLE[self.state.status].work
        if work not in (Work.STOP, Work.KILL):
            # Nothing is begun that could be forgotten. What ends is ended, also on a full disk.
            await self._recorder.durable(self.backend_id)
        try:
            match self.state:
                case Scheduled():
                    return Loading()
                case Loading() if self.order is not None:
                    await self._runtime.prepare(self.order.executable)
                    return Starting()
                case Starting() if self.order is not None:
                    port = await self._runtime.spawn(
                        self.backend_id,
                        self.order.executable,
                        self.order.key,
                        self.order.static_token,
                        self._hard_deadline_ns(),
                    )
                    return Waiting(address=format_socket_address(self._ip, port))
                case Waiting(address=address):
                    await self._runtime.wait_for_backend(self.backend_id, *parse_socket_address(address))
                    return Ready(address=address)
                case _:
                    if work in (Work.STOP, Work.KILL) and not await self._terminate(hard=work is Work.KILL):
                        return to_terminated(self.state, message=self._message)
        except BackendFailed as error:
            return self._failed(error)
        except Exception as error:
            log.exception("backend failed in an unforeseen way", backend=self.backend_id)
            return self._failed(BackendFailed(f"internal error of the drone: {error!r}; its log tells more"))
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
        """Have the runtime end it, however often that takes. False: it was not running."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                return await self._runtime.terminate(self.backend_id, hard=hard)
            except BackendFailed as error:
                log.warning("cannot end backend; trying again", backend=self.backend_id, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * RETRY_FACTOR, RETRY_CAP_S)
