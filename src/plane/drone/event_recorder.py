"""Record the events of all backends, even while the state store is not writable because the disk is full or hangs.

Events that cannot be stored are queued in memory, in order, and stored as soon as the store is writable again. So a
backend can be terminated on such a disk: a start waits for `wait_durable`, a termination does not. `plane.drone.server`
owns `run`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from plane.decisions.backends.failures import is_failure
from plane.drone.clock import DroneClock
from plane.drone.state_store import StateStore
from plane.protocol.backend_state import BackendState, BackendStatus, Terminated
from plane.protocol.drone_messages import SpawnOrder
from plane.protocol.errors import PlaneError
from plane.protocol.times import DroneTime
from plane.tasks import run_together

__all__ = ["EventRecorder", "StoreUnwritable"]

# Between attempts to write to a failing state store.
RETRY_INTERVAL_S = 1.0
# Acknowledged events are deleted together, this long after the first acknowledgement.
DELETE_DELAY_S = 0.1
# A backend whose lease has expired is killed at most this much later, seconds before another may be started.
WRITE_TIMEOUT_S = 5.0

log = structlog.get_logger("plane.drone")


class StoreUnwritable(PlaneError):
    """The state store is not writable, so nothing new may be started: a crash would forget it."""


@dataclass(frozen=True, slots=True)
class _PendingEvent:
    """An event that is not stored yet."""

    backend_id: str
    state: BackendState
    at: DroneTime
    handle: Any


class EventRecorder:
    """Writes the events of one drone to its store.

    Args:
        write_timeout_s: how long a write may take before the event is queued in memory.
        retry_interval_s: between attempts to write to a failing store.

    Attributes:
        entered: how many backends entered each status, since this process started.
        failures: how many ended without being ordered to, for a reason that is a failure.
    """

    def __init__(
        self,
        store: StateStore,
        clock: DroneClock,
        *,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        retry_interval_s: float = RETRY_INTERVAL_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._write_timeout_s = write_timeout_s
        self._retry_interval_s = retry_interval_s
        # Bounded by the number of backends: states only advance, and an event is acknowledged once.
        self._pending: deque[_PendingEvent] = deque()
        self._acknowledged: list[int] = []
        self._has_pending = asyncio.Event()
        self._has_acknowledged = asyncio.Event()
        self._stored = asyncio.Condition()
        self.entered: Counter[BackendStatus] = Counter()
        self.failures = 0

    @property
    def pending_count(self) -> int:
        """The number of events that are in memory only, because the state store is not writable."""
        return len(self._pending)

    async def begin(self, backend_id: str, states: Sequence[BackendState], order: SpawnOrder) -> None:
        """Record a new backend and its first states.

        Raises:
            StoreUnwritable: nothing was recorded.
        """
        try:
            await self._store.begin_backend(backend_id, states, self._clock.now(), order)
        except sqlite3.Error as error:
            log.error("state store not writable; no new backends are accepted", error=str(error))
            raise StoreUnwritable(f"the state store is not writable: {error}") from error
        self._count(*states)

    async def record(self, backend_id: str, state: BackendState, handle: Any = None) -> None:
        """Record a state. It may only be in memory when this returns; see `wait_durable`."""
        self._count(state)
        event = _PendingEvent(backend_id, state, self._clock.now(), handle)
        reason = "earlier events are pending"
        if not self._pending:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await self._write(event)
                return
            except TimeoutError:
                # If the write succeeds later, the event is sent twice, which has no effect.
                reason = f"the disk did not respond within {self._write_timeout_s:g} s"
            except sqlite3.Error as error:
                reason = str(error)
        log.error("backend state not persisted; retrying", backend=backend_id, error=reason)
        self._pending.append(event)
        self._has_pending.set()

    def _count(self, *states: BackendState) -> None:
        self.entered.update(state.status for state in states)
        self.failures += sum(isinstance(state, Terminated) and is_failure(state) for state in states)

    async def wait_durable(self, backend_id: str) -> None:
        """Return once all recorded states of the backend are stored."""
        async with self._stored:
            await self._stored.wait_for(lambda: all(event.backend_id != backend_id for event in self._pending))

    def acknowledge(self, event_id: int) -> None:
        """Delete an event that a controller has acknowledged, soon."""
        self._acknowledged.append(event_id)
        self._has_acknowledged.set()

    async def run(self) -> None:
        """Store pending events and delete acknowledged ones until cancelled."""
        await run_together(self._store_pending(), self._delete_acknowledged())

    async def _store_pending(self) -> None:
        while True:
            await self._has_pending.wait()
            await asyncio.sleep(self._retry_interval_s)
            try:
                while self._pending:
                    await self._write(self._pending[0])
                    self._pending.popleft()
                    async with self._stored:
                        self._stored.notify_all()
            except sqlite3.Error:
                continue
            self._has_pending.clear()
            log.info("state store writable again")

    async def _delete_acknowledged(self) -> None:
        """Delete all acknowledged events in one transaction, since each transaction takes a sync of the disk."""
        while True:
            await self._has_acknowledged.wait()
            # The sync must not delay a backend's next state. An event that is sent twice has no effect.
            await asyncio.sleep(DELETE_DELAY_S)
            self._has_acknowledged.clear()
            event_ids, self._acknowledged = self._acknowledged, []
            try:
                await self._store.ack_events(event_ids)
            except sqlite3.Error:
                self._acknowledged += event_ids
                self._has_acknowledged.set()
                await asyncio.sleep(self._retry_interval_s)

    async def _write(self, event: _PendingEvent) -> None:
        await self._store.register_event(event.backend_id, event.state, event.at, handle=event.handle)
