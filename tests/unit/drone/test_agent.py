"""A drone's session: actions are applied once each, in order for each backend, and nothing delays a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from harness.enforcers import FakeEnforcer, aged_clock
from plane.drone.agent import Agent, DroneSocket
from plane.drone.backend_manager import BackendManager
from plane.drone.event_recorder import EventRecorder
from plane.drone.state_store import StateStore, open_state_store
from plane.protocol.backend_state import BackendStatus, Ready, Terminated, TerminationKind, TerminationReason
from plane.protocol.drone_messages import (
    AckEvent,
    BackendAction,
    BackendEvent,
    BackendOrder,
    Heartbeat,
    MessageFromDrone,
    MessageToDrone,
    RenewKey,
    RenewKeyResponse,
    SpawnOrder,
    Stopping,
    TerminateOrder,
)
from plane.protocol.handshake import Extension, Handshake, Version
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.runtime.base import RuntimeListener
from plane.runtime.memory import MemoryRuntime
from plane.tasks import end_tasks


class Socket:
    """A controller that sends what a test queues, and records what it receives."""

    def __init__(self, *extensions: Extension) -> None:
        self.peer = Handshake(Version("0.5.5", "87daf256"), "co-x", tuple(extensions))
        self.to_send: asyncio.Queue[MessageToDrone | None] = asyncio.Queue()
        self.received: list[Any] = []

    async def send(self, message: MessageFromDrone) -> None:
        self.received.append(message.content)

    async def messages(self) -> AsyncIterator[MessageToDrone]:
        while (message := await self.to_send.get()) is not None:
            yield message

    def events(self) -> list[BackendEvent]:
        return [content for content in self.received if isinstance(content, BackendEvent)]

    def acknowledged(self) -> list[str]:
        return [content.action_id for content in self.received if type(content).__name__ == "AckAction"]


class RecordingBackendManager(BackendManager):
    """Records the terminations of expired leases."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.expired: list[tuple[str, TerminationKind]] = []

    def _on_lease_expired(self, backend_id: str, kind: TerminationKind) -> None:
        self.expired.append((backend_id, kind))


class SlowBackendManager(BackendManager):
    """Records when each action begins and ends, and lets a test decide when."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.notes: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {}

    async def apply(self, action: BackendAction) -> bool:
        self.notes.append(f"{action.action_id} begins")
        await self.may_end.setdefault(action.action_id, asyncio.Event()).wait()
        self.notes.append(f"{action.action_id} ends")
        return True


def terminate(action: str, backend: str) -> MessageToDrone:
    order = BackendOrder(terminate=TerminateOrder(TerminationKind.SOFT, TerminationReason.EXTERNAL))
    return MessageToDrone(action=BackendAction(action, backend, 1, order))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_actions_are_applied_once_and_in_order_for_each_backend() -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)
        backends = SlowBackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), MemoryRuntime())
        agent, socket = Agent(store, recorder, backends, clock), Socket()
        session = asyncio.create_task(agent.run_session(cast(DroneSocket, socket)))
        for action, backend in (("1", "a"), ("2", "a"), ("3", "b"), ("1", "a"), ("4", "a")):
            socket.to_send.put_nowait(terminate(action, backend))
        # The other backend does not wait; what came twice is under way once.
        await until(lambda: backends.notes == ["1 begins", "3 begins"])
        backends.may_end["3"].set()
        await until(lambda: socket.acknowledged() == ["3"])
        backends.may_end["1"].set()
        await until(lambda: "2 begins" in backends.notes)
        assert "4 begins" not in backends.notes
        # What comes while an order ends still waits for its turn.
        socket.to_send.put_nowait(terminate("5", "a"))
        for action in ("2", "4", "5"):
            await until(lambda action=action: action in backends.may_end)
            backends.may_end[action].set()
        await until(lambda: socket.acknowledged() == ["3", "1", "2", "4", "5"])
        assert [note for note in backends.notes if "begins" in note].count("1 begins") == 1
        socket.to_send.put_nowait(None)
        await session


async def test_a_stopping_drone_tells_only_controllers_with_the_extension() -> None:
    for extensions in ((), (Extension.STOPPING,)):
        async with open_state_store(None) as store:
            clock = aged_clock()
            recorder = EventRecorder(store, clock)
            backends = BackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), MemoryRuntime())
            agent, socket = Agent(store, recorder, backends, clock), Socket(*extensions)
            session = asyncio.create_task(agent.run_session(cast(DroneSocket, socket)))
            await until(lambda socket=socket: socket.received)
            await agent.announce_stopping()
            assert (Stopping() in socket.received) is bool(extensions)
            socket.to_send.put_nowait(None)
            await session


@pytest.mark.parametrize(("extensions", "again"), [((), []), ((Extension.STATES,), ["live", "new"])])
async def test_a_controller_with_the_extension_receives_the_states_of_live_backends_again(
    extensions: tuple[Extension, ...], again: list[str]
) -> None:
    """The database may have lost them since: restored from a copy, or failed over to a standby that lagged behind."""
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)
        backends = BackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), MemoryRuntime())
        ready = Ready(address="127.0.0.1:1")
        await recorder.record("live", ready)
        await recorder.record("ended", Terminated(last_status=BackendStatus.READY))
        await store.ack_events(await unacknowledged(store))
        await recorder.record("new", ready)
        socket = Socket(*extensions)
        agent = Agent(store, recorder, backends, clock)
        session = asyncio.create_task(agent.run_session(cast(DroneSocket, socket)))
        await until(lambda: len(socket.events()) == 1 + len(again))
        socket.to_send.put_nowait(None)
        await session
        assert [(event.backend_id, event.state) for event in socket.events() if event.event_id > 0] == [("new", ready)]
        assert [(event.backend_id, event.state) for event in socket.events() if event.event_id == 0] == [
            (backend, ready) for backend in again
        ]


class Stalled(Socket):
    """A controller that takes no renewal."""

    async def send(self, message: MessageFromDrone) -> None:
        await super().send(message)
        if isinstance(message.content, RenewKey):
            await asyncio.Event().wait()


async def test_a_controller_that_receives_nothing_delays_no_deadline() -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)
        backends = RecordingBackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), MemoryRuntime())
        agent, socket = Agent(store, recorder, backends, clock), Stalled()
        now = clock.now()
        backends.leases.add("renews", KeyDeadlines(now, now.plus_s(3600), now.plus_s(3600)))
        tasks = [
            asyncio.create_task(agent.run_session(cast(DroneSocket, socket))),
            asyncio.create_task(backends.leases.run()),
        ]
        await until(lambda: any(isinstance(content, RenewKey) for content in socket.received))
        backends.leases.add("ends", KeyDeadlines(now, now, now))
        await until(lambda: backends.expired == [("ends", TerminationKind.HARD)])
        await end_tasks(tasks)


async def test_a_hanging_disk_delays_no_message_of_the_controller() -> None:
    disk_answers = threading.Event()
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)
        backends = BackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), MemoryRuntime())
        agent, socket = Agent(store, recorder, backends, clock), Socket()
        now = clock.now()
        backends.leases.add("b", KeyDeadlines(now, now.plus_s(3600), now.plus_s(3600)))
        await recorder.record("b", Ready(address="127.0.0.1:1"))
        [event] = await unacknowledged(store)
        store._thread.submit(disk_answers.wait)
        tasks = [asyncio.create_task(agent.run_session(cast(DroneSocket, socket))), asyncio.create_task(recorder.run())]
        try:
            await until(lambda: any(isinstance(content, Heartbeat) for content in socket.received))
            socket.to_send.put_nowait(MessageToDrone(ack_event=AckEvent(event)))
            renewed = KeyDeadlines(now.plus_s(30), now.plus_s(40), now.plus_s(50))
            socket.to_send.put_nowait(MessageToDrone(renew_key_response=RenewKeyResponse("b", renewed)))
            await until(lambda: backends.leases.take_renewed() == {"b": renewed})
        finally:
            disk_answers.set()
        async with asyncio.timeout(10):
            while await unacknowledged(store):
                await asyncio.sleep(0.01)
        await end_tasks(tasks)


async def unacknowledged(store: StateStore) -> list[int]:
    """The ids of the events that no controller has acknowledged, as far as that is stored."""
    rows = await store._run(lambda: store._rows("SELECT id FROM event"))
    return [row[0] for row in rows]


def spawn(action: str, backend: str, order: SpawnOrder) -> MessageToDrone:
    return MessageToDrone(action=BackendAction(action, backend, 1, BackendOrder(spawn=order)))


async def test_a_broken_connection_and_a_hanging_disk_leave_no_half_started_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_state_store(None) as store:
        clock = aged_clock()
        recorder = EventRecorder(store, clock)
        runtime = MemoryRuntime()
        backends = BackendManager(store, recorder, clock, "127.0.0.1", FakeEnforcer(), runtime)
        await runtime.start(RuntimeListener(backends.on_exit))
        agent, first, second = Agent(store, recorder, backends, clock), Socket(), Socket()
        now = clock.now()
        key = AcquiredKey(KeyConfig("k"), KeyDeadlines(now.plus_s(30), now.plus_s(40), now.plus_s(50)), 1)
        session = asyncio.create_task(agent.run_session(cast(DroneSocket, first)))
        await until(lambda: first.received)
        disk_answers = threading.Event()
        begin, begun = store.begin_backend, asyncio.Event()

        async def begin_slowly(*args: Any) -> None:
            store._thread.submit(disk_answers.wait)
            begun.set()
            await begin(*args)

        monkeypatch.setattr(store, "begin_backend", begin_slowly)
        first.to_send.put_nowait(spawn("ak-1", "b", SpawnOrder({}, key)))
        await begun.wait()
        first.to_send.put_nowait(None)
        await session
        disk_answers.set()
        session = asyncio.create_task(agent.run_session(cast(DroneSocket, second)))
        second.to_send.put_nowait(spawn("ak-1", "b", SpawnOrder({}, key)))
        await until(lambda: second.acknowledged() == ["ak-1"])
        await until(lambda: runtime.spawned == ["b"])
        second.to_send.put_nowait(None)
        await session
        await backends.detach_all()
