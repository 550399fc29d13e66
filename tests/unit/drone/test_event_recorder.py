"""Events are stored in order, also after the state store was not writable."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from harness.enforcers import aged_clock
from plane.drone.event_recorder import EventRecorder, StoreUnwritable
from plane.drone.state_store import open_state_store
from plane.protocol.backend_state import BackendStatus, Loading, Ready, Scheduled, Waiting
from plane.protocol.drone_messages import BackendEvent, SpawnOrder
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.tasks import end_tasks


async def test_events_of_an_unwritable_store_are_stored_in_order_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_state_store(None) as store:
        recorder = EventRecorder(store, aged_clock(), retry_interval_s=0.01)
        running = asyncio.create_task(recorder.run())
        events: list[BackendEvent] = []
        await store.register_listener(events.append)
        register, is_full = store.register_event, True

        async def register_or_fail(*args: Any, **options: Any) -> int:
            if is_full:
                raise sqlite3.OperationalError("database or disk is full")
            return await register(*args, **options)

        monkeypatch.setattr(store, "register_event", register_or_fail)
        await recorder.record("b", Waiting(address="127.0.0.1:1"))
        await recorder.record("b", Ready(address="127.0.0.1:1"))
        waiting = asyncio.create_task(recorder.wait_durable("b"))
        # Other backends have nothing to wait for.
        await recorder.wait_durable("other")
        await asyncio.sleep(0.05)
        assert not waiting.done()
        is_full = False
        async with asyncio.timeout(10):
            await waiting
        assert [event.state.status for event in events] == [BackendStatus.WAITING, BackendStatus.READY]
        await end_tasks([running])


async def test_a_new_backend_is_refused_if_the_store_is_not_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)

        async def fail(*args: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(store, "begin_backend", fail)
        now = clock.now()
        order = SpawnOrder({}, AcquiredKey(KeyConfig("k"), KeyDeadlines(now, now, now), 1))
        with pytest.raises(StoreUnwritable, match="database or disk is full"):
            await recorder.begin("b", [Scheduled(), Loading()], order)
