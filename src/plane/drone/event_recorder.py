"""Records the events of all backends, also while the state store cannot be written: the disk is full, or hangs.

What cannot be stored is kept in memory, in order, and stored as soon as that is possible again. So a backend can be
ended on such a disk: whoever starts something waits for `durable`, whoever ends something does not. `run` is owned by
`plane.drone.server`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from plane.drone.clock import DroneClock
from plane.drone.state_store import StateStore
from plane.protocol.backend_state import BackendState
from plane.protocol.drone_messages import SpawnOrder
from plane.protocol.errors import PlaneError
from plane.protocol.times import DroneTime
from plane.tasks import run_together

__all__ = ["EventRecorder", "StoreUnwritable"]

# Between tries to write to a state store that fails.
RETRY_S = 1.0
# Acknowledged events are forgotten together, this long after the first.
FORGET_AFTER_S = 0.1
# A backend whose key's lease is over is killed so much later at most, which leaves seconds before another may start.
WRITE_LIMIT_S = 5.0

log = structlog.get_logger("plane.drone")


class StoreUnwritable(PlaneError):
    """Nothing new can be begun: it could be forgotten."""


@dataclass(frozen=True, slots=True)
class _Owed:
    """An event that is not stored yet."""

    backend_id: str
    state: BackendState
    at: DroneTime
    handle: Any


class EventRecorder:
    """Writes events to the store of one drone."""

    def __init__(self, store: StateStore, clock: DroneClock) -> None:
        self._store = store
        self._clock = clock
        # Bounded by what exists: a backend's states rise, and an event is acknowledged once.
        self._owed: deque[_Owed] = deque()
        self._acknowledged: list[int] = []
        self._owes = asyncio.Event()
        self._may_forget = asyncio.Event()
        self._stored = asyncio.Condition()

    async def begin(self, backend_id: str, states: Sequence[BackendState], order: SpawnOrder) -> None:
        """Record a new backend, and the states that it goes through at once.

        Raises:
            StoreUnwritable: it is not recorded.
        """
        try:
            await self._store.begin_backend(backend_id, states, self._clock.now(), order)
        except sqlite3.Error as error:
            log.error("no new work is accepted: the state store cannot be written", error=str(error))
            raise StoreUnwritable(f"the state store cannot be written: {error}") from error

    async def record(self, backend_id: str, state: BackendState, handle: Any = None) -> None:
        """Record a state, if need be for the moment in memory only; see `durable`."""
        owed = _Owed(backend_id, state, self._clock.now(), handle)
        reason = "others wait"
        if not self._owed:
            try:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await self._write(owed)
                return
            except TimeoutError:
                # If it is stored all the same, it is told of twice, which changes nothing.
                reason = f"the disk does not answer within {WRITE_LIMIT_S:g} s"
            except sqlite3.Error as error:
                reason = str(error)
        log.error("state not stored; it will be, as soon as it can", backend=backend_id, error=reason)
        self._owed.append(owed)
        self._owes.set()

    async def durable(self, backend_id: str) -> None:
        """Return once all recorded states of the backend are stored."""
        async with self._stored:
            await self._stored.wait_for(lambda: all(owed.backend_id != backend_id for owed in self._owed))

    def acknowledge(self, event_id: int) -> None:
        """A controller has the event; it is forgotten soon."""
        self._acknowledged.append(event_id)
        self._may_forget.set()

    async def run(self) -> None:
        """Store what is owed, when that is possible, and forget what is acknowledged; until cancelled."""
        await run_together(self._store_owed(), self._forget_acknowledged())

    async def _store_owed(self) -> None:
        while True:
            await self._owes.wait()
            await asyncio.sleep(RETRY_S)
            try:
                while self._owed:
                    await self._write(self._owed[0])
                    self._owed.popleft()
                    async with self._stored:
                        self._stored.notify_all()
            except sqlite3.Error:
                continue
            self._owes.clear()
            log.info("the state store can be written again")

    async def _forget_acknowledged(self) -> None:
        """All that were acknowledged meanwhile in one transaction: each takes a sync of the disk."""
        while True:
            await self._may_forget.wait()
            # A backend's next state must not wait for the sync of this. An event that is sent twice changes nothing.
            await asyncio.sleep(FORGET_AFTER_S)
            self._may_forget.clear()
            event_ids, self._acknowledged = self._acknowledged, []
            try:
                await self._store.ack_events(event_ids)
            except sqlite3.Error:
                self._acknowledged += event_ids
                self._may_forget.set()
                await asyncio.sleep(RETRY_S)

    async def _write(self, owed: _Owed) -> None:
        await self._store.register_event(owed.backend_id, owed.state, owed.at, handle=owed.handle)
