"""Actions that arrive late, twice, or are invalid, and backends of a former process, with the memory runtime."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from harness.enforcers import FakeEnforcer, aged_clock
from plane.drone.backend_manager import BackendManager
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder
from plane.drone.state_store import StateStore, open_state_store
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
from plane.protocol.drone_messages import BackendAction, BackendEvent, BackendOrder, SpawnOrder, TerminateOrder
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.logs import LogPage
from plane.runtime.base import AdoptionResult, RuntimeListener, SpawnRequest
from plane.runtime.logs.collector import LogsNotRetained
from plane.runtime.memory import MemoryRuntime
from plane.tasks import end_tasks


class Drone:
    """A drone whose backends are in memory."""

    def __init__(self, store: StateStore, clock: DroneClock, runtime: MemoryRuntime, **times: float) -> None:
        self.clock = clock
        self.store = store
        self.recorder = EventRecorder(store, clock, **times)
        self.runtime = runtime
        self.backends = BackendManager(
            store, self.recorder, clock, "127.0.0.1", FakeEnforcer(), runtime, clock_id="c-1"
        )
        self.events: list[BackendEvent] = []

    def order(self, key: str = "k", *, seconds_ago: float = 0) -> SpawnOrder:
        start = self.clock.now().plus_s(-seconds_ago)
        deadlines = KeyDeadlines(start.plus_s(30), start.plus_s(40), start.plus_s(50))
        return SpawnOrder({}, AcquiredKey(KeyConfig(key), deadlines, 1))

    async def spawn(self, backend: str, order: SpawnOrder) -> bool:
        return await self.backends.apply(BackendAction(f"ak-{backend}", backend, 1, BackendOrder(spawn=order)))

    async def terminate(self, backend: str) -> bool:
        order = TerminateOrder(TerminationKind.SOFT, TerminationReason.EXTERNAL)
        return await self.backends.apply(BackendAction(f"ak-t{backend}", backend, 1, BackendOrder(terminate=order)))

    def states(self, backend: str) -> list[BackendState]:
        return [event.state for event in self.events if event.backend_id == backend]

    async def until(self, backend: str, status: BackendStatus) -> None:
        await until(lambda: any(state.status is status for state in self.states(backend)))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def drone(
    store: StateStore | None = None,
    clock: DroneClock | None = None,
    runtime: MemoryRuntime | None = None,
    **times: float,
) -> AsyncIterator[Drone]:
    async with open_state_store(None) as own:
        it = Drone(store or own, clock or aged_clock(), runtime or MemoryRuntime(), **times)
        await it.runtime.start(RuntimeListener(it.backends.on_exit))
        it.backends.on_accepted()
        await (store or own).register_listener(it.events.append)
        leases = asyncio.create_task(it.backends.leases.run())
        try:
            yield it
        finally:
            it.backends.refuse_work()
            await it.backends.detach_all()
            await end_tasks([leases])


async def test_a_spawn_after_its_soft_deadline_is_refused_and_reported() -> None:
    async with drone() as it:
        assert await it.spawn("late", it.order(seconds_ago=41)) is True
        (state,) = it.states("late")
        assert isinstance(state, Terminated)
        assert "nearly expired" in str(state.message)
        assert it.runtime.spawned == []


@pytest.mark.parametrize(("clock", "is_started"), [(UNSET, True), ("c-1", True), ("c-2", False)])
async def test_an_order_for_the_clock_of_another_drone_of_this_name_is_refused(
    clock: str | UnsetType, is_started: bool
) -> None:
    async with drone() as it:
        # Both clocks read nearly the same.
        assert await it.spawn("b", msgspec.structs.replace(it.order(seconds_ago=1), clock=clock)) is True
        if is_started:
            await it.until("b", BackendStatus.READY)
        else:
            (state,) = it.states("b")
            assert isinstance(state, Terminated)
            # The key is not freed before its lease ends.
            assert (state.reason, state.termination) == (TerminationReason.LOST, None)
            assert it.runtime.spawned == []


async def test_a_repeated_action_has_no_further_effect() -> None:
    async with drone() as it:
        order = it.order()
        for _ in range(3):
            assert await it.spawn("b", order) is True
        await it.until("b", BackendStatus.READY)
        assert it.runtime.spawned == ["b"]
        for _ in range(3):
            assert await it.terminate("b") is True
        await it.until("b", BackendStatus.TERMINATED)
        assert await it.spawn("b", order) is True
        assert await it.terminate("b") is True
        statuses = [state.status.number for state in it.states("b")]
        assert statuses == sorted(set(statuses))
        assert it.runtime.spawned == ["b"]


async def test_a_start_does_not_wait_until_starting_is_stored_but_later_states_do() -> None:
    async with open_state_store(None) as store:
        may_store, register = asyncio.Event(), store.register_event

        async def slow(backend: str, state: BackendState, *args: Any, **options: Any) -> int:
            if state.status is BackendStatus.STARTING:
                await may_store.wait()
            return await register(backend, state, *args, **options)

        store.register_event = slow  # type: ignore[assignment, method-assign]
        async with drone(store) as it:
            assert await it.spawn("b", it.order()) is True
            await until(lambda: it.runtime.spawned)
            for _ in range(20):
                await asyncio.sleep(0)
            assert it.states("b")[-1].status is BackendStatus.LOADING
            may_store.set()
            await it.until("b", BackendStatus.READY)
            statuses = [state.status for state in it.states("b")]
            assert statuses == [*BackendStatus][: len(statuses)]


async def test_a_drone_that_stops_while_starting_is_being_stored_leaves_no_task() -> None:
    async with open_state_store(None) as store:
        begun, register = asyncio.Event(), store.register_event

        async def hung(backend: str, state: BackendState, *args: Any, **options: Any) -> int:
            if state.status is BackendStatus.STARTING:
                begun.set()
                await asyncio.Event().wait()
            return await register(backend, state, *args, **options)

        store.register_event = hung  # type: ignore[assignment, method-assign]
        async with drone(store) as it:
            assert await it.spawn("b", it.order()) is True
            await begun.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_invalid_ids_and_held_keys_are_refused() -> None:
    async with drone() as it:
        for name in ("../../etc", "a/b", "UPPER", "x" * 46, ""):
            assert await it.spawn(name, it.order(f"key-{name}")) is True
            (state,) = it.states(name)
            assert isinstance(state, Terminated)
            assert "is not a valid backend id" in str(state.message)
        assert await it.spawn("holder", it.order("held"))
        await it.until("holder", BackendStatus.READY)
        assert await it.spawn("second", it.order("held")) is True
        (state,) = it.states("second")
        assert isinstance(state, Terminated)
        assert "still held here by backend holder" in str(state.message)
        assert it.runtime.spawned == ["holder"]


async def test_a_stopping_drone_accepts_no_backends() -> None:
    async with drone() as it:
        it.backends.refuse_work()
        assert await it.spawn("b", it.order()) is False
        assert it.events == []


async def test_an_unknown_backend_is_reported_as_lost_once() -> None:
    async with drone() as it:
        assert await it.terminate("unknown") is True
        assert await it.terminate("unknown") is True
        (state,) = it.states("unknown")
        assert isinstance(state, Terminated)
        assert state.reason is TerminationReason.LOST


async def test_adopted_leases_are_renewed_and_expired_ones_end_their_backends() -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        async with drone(store, clock) as before:
            fresh, over = before.order("fresh"), before.order("over", seconds_ago=39)
            assert await before.spawn("fresh", fresh)
            assert await before.spawn("over", over)
            for backend in ("fresh", "over"):
                await before.until(backend, BackendStatus.READY)
            runtime = before.runtime
        # The new process has the same clock, and finds what the old one left.
        async with drone(store, DroneClock(clock.reading), runtime) as after:
            await after.backends.adopt_backends()
            await after.until("over", BackendStatus.TERMINATED)
            ended = after.states("over")[-1]
            assert isinstance(ended, Terminated)
            assert ended.reason is TerminationReason.KEY_EXPIRED
            assert after.states("fresh")[-1] == Ready(address="127.0.0.1:1")
            assert await after.terminate("fresh")
            await after.until("fresh", BackendStatus.TERMINATED)


async def test_after_a_boot_running_backends_are_terminated_softly() -> None:
    async with open_state_store(None) as store:
        async with drone(store) as before:
            assert await before.spawn("b", before.order())
            await before.until("b", BackendStatus.READY)
            runtime = before.runtime
            await store.register_event("loading", Loading(), before.clock.now())
            await store.register_event("scheduled", Scheduled(), before.clock.now())
        # A clock that began anew: stored deadlines mean nothing to it.
        async with drone(store, DroneClock(), runtime) as after:
            await after.backends.adopt_backends()
            for backend in ("b", "loading", "scheduled"):
                await after.until(backend, BackendStatus.TERMINATED)
            ended = after.states("b")[-1]
            assert isinstance(ended, Terminated)
            assert (ended.reason, ended.termination) == (TerminationReason.KEY_EXPIRED, TerminationKind.SOFT)


class SlowRuntime(MemoryRuntime):
    """Prepares and adopts backends only when a test lets it, and has output of running backends only."""

    def __init__(self) -> None:
        super().__init__()
        self.may_continue = asyncio.Event()

    async def prepare(self, executable: Any) -> Any:
        await self.may_continue.wait()
        return executable

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        await self.may_continue.wait()
        return await super().adopt(backend_id, handle)

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        if backend_id not in self._running:
            raise LogsNotRetained("never ran here")
        return await super().read_logs(backend_id, after, tail, wait_s)


async def test_a_backend_that_is_being_prepared_has_no_output_yet() -> None:
    runtime = SlowRuntime()
    async with drone(runtime=runtime) as it:
        assert await it.spawn("b", it.order())
        for wait_s in (0, 0.01):
            page = await it.backends.read_logs("b", None, None, wait_s)
            assert (page.lines, page.ended) == ([], False)
        runtime.may_continue.set()
        await it.until("b", BackendStatus.READY)
        assert (await it.backends.read_logs("b", None, None, 0)).ended is False
        it.runtime.exit("b", 0)
        await until(lambda: "b" not in it.backends._runners)
        with pytest.raises(LogsNotRetained):
            await it.backends.read_logs("b", None, None, 0)


async def test_output_of_a_former_backend_is_readable_once_it_is_adopted() -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        async with drone(store, clock) as before:
            assert await before.spawn("b", before.order())
            await before.until("b", BackendStatus.READY)
        runtime = SlowRuntime()
        async with drone(store, DroneClock(clock.reading), runtime) as after:
            await runtime.spawn(SpawnRequest("b", {}))
            runtime.may_continue.clear()
            await after.backends.adopt_backends()
            reading = asyncio.create_task(after.backends.read_logs("b", None, None, 0))
            await asyncio.sleep(0.01)
            assert not reading.done()
            runtime.may_continue.set()
            assert (await reading).ended is False


async def test_a_backend_is_killed_although_the_disk_hangs() -> None:
    disk_answers = threading.Event()
    async with drone(write_timeout_s=0.05, retry_interval_s=0.05) as it:
        recording = asyncio.create_task(it.recorder.run())
        order = it.order()
        assert await it.spawn("b", order)
        await it.until("b", BackendStatus.READY)
        try:
            it.store._thread.submit(disk_answers.wait)
            # Its lease has expired.
            now = it.clock.now()
            it.backends.leases.add("b", KeyDeadlines(now, now, now))
            await until(lambda: "b" not in it.runtime._running)
        finally:
            disk_answers.set()
        # Events that are sent twice are sent in order.
        await it.until("b", BackendStatus.TERMINATED)
        statuses = [state.status.number for state in it.states("b")]
        assert statuses == sorted(statuses)
        await end_tasks([recording])


async def test_a_backend_stored_by_a_failing_disk_is_started_when_its_action_is_resent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with drone() as it:
        begin = it.store.begin_backend

        async def fails_afterwards(*args: Any) -> None:
            await begin(*args)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(it.store, "begin_backend", fails_afterwards)
        order = it.order()
        assert await it.spawn("b", order) is False
        assert it.runtime.spawned == []
        assert await it.spawn("b", order) is True
        await it.until("b", BackendStatus.READY)
        assert it.runtime.spawned == ["b"]


async def test_a_start_that_the_disk_delayed_past_its_lease_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk_answers = threading.Event()
    async with drone() as it:
        start = it.clock.now().plus_s(-39.8)
        deadlines = KeyDeadlines(start.plus_s(30), start.plus_s(40), start.plus_s(50))
        order = SpawnOrder({}, AcquiredKey(KeyConfig("k"), deadlines, 1))
        begin = it.store.begin_backend

        async def begin_slowly(*args: Any) -> None:
            it.store._thread.submit(disk_answers.wait)
            await begin(*args)

        monkeypatch.setattr(it.store, "begin_backend", begin_slowly)
        spawning = asyncio.create_task(it.spawn("b", order))
        await until(lambda: it.clock.now() >= deadlines.soft_terminate_at)
        disk_answers.set()
        assert await spawning is True
        await it.until("b", BackendStatus.TERMINATED)
        assert it.runtime.spawned == []
