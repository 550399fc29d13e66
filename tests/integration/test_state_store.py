"""The drone's state store against a dictionary as its model, and against SIGKILL at random moments."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from plane.drone.clock import ClockReading
from plane.drone.server import resolve_name
from plane.drone.state_store import StateStore, UnknownBackend, open_state_store
from plane.protocol import codec
from plane.protocol.backend_state import BackendState, Loading, Ready, Scheduled, Terminated
from plane.protocol.backend_state import BackendStatus as Status
from plane.protocol.drone_messages import BackendEvent, SpawnOrder
from plane.protocol.errors import ConfigurationError
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.names import NodeName
from plane.protocol.times import DroneTime

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "contract/golden/state_store.json").read_text())
STATES: list[BackendState] = [
    Scheduled(),
    Loading(),
    Ready(address="127.0.0.1:1"),
    Terminated(last_status=Status.READY, exit_code=3, message="why"),
]


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of operations and restarts agrees with a dictionary."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "drone.sqlite"
        self.states: dict[str, BackendState] = {}
        self.unacknowledged: dict[int, BackendEvent] = {}
        self.last_id = 0
        self.received: list[BackendEvent] | None = None
        self.expected: list[BackendEvent] = []

    @initialize()
    def open(self) -> None:
        self.manager = open_state_store(self.path)
        self.store: StateStore = self.loop.run_until_complete(self.manager.__aenter__())

    @rule(target=names, name=st.sampled_from(["a", "b", "c"]))
    def name(self, name: str) -> str:
        return name

    @rule(name=names, state=st.sampled_from(STATES), at=st.integers(0, 10))
    def register(self, name: str, state: BackendState, at: int) -> None:
        event_id = self.loop.run_until_complete(self.store.register_event(name, state, DroneTime(at)))
        assert event_id == self.last_id + 1
        self.last_id = event_id
        self.states[name] = state
        event = BackendEvent(event_id, name, state, DroneTime(at))
        self.unacknowledged[event_id] = event
        self.expected.append(event)

    @rule(name=names)
    def read(self, name: str) -> None:
        if name in self.states:
            assert self.loop.run_until_complete(self.store.backend_state(name)) == self.states[name]
        else:
            with pytest.raises(UnknownBackend, match=f"'{name}'"):
                self.loop.run_until_complete(self.store.backend_state(name))

    @rule()
    def listen(self) -> None:
        """A new listener receives all unacknowledged events, and replaces the former one."""
        self.received, self.expected = [], list(self.unacknowledged.values())
        self.loop.run_until_complete(self.store.register_listener(self.received.append))

    @rule(position=st.integers(0, 5))
    def acknowledge(self, position: int) -> None:
        if self.unacknowledged:
            event_id = list(self.unacknowledged)[position % len(self.unacknowledged)]
            self.loop.run_until_complete(self.store.ack_events([event_id]))
            del self.unacknowledged[event_id]

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.manager.__aexit__(None, None, None))
        self.received = None
        self.open()

    @invariant()
    def heard_what_was_registered(self) -> None:
        if self.received is not None:
            assert self.received == self.expected

    @invariant()
    def knows_what_is_active(self) -> None:
        if hasattr(self, "store"):
            active = {name: state for name, state in self.states.items() if not isinstance(state, Terminated)}
            runs = self.loop.run_until_complete(self.store.active_runs())
            assert {backend_id: run.state for backend_id, run in runs.items()} == active
            pending = self.loop.run_until_complete(self.store.has_unacknowledged())
            assert pending == bool(self.unacknowledged)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run_until_complete(self.manager.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=25)

CHILD = """
import asyncio, sys
from pathlib import Path
from plane.drone.state_store import open_state_store
from plane.protocol.backend_state import Loading
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.times import DroneTime

async def main(path):
    async with open_state_store(path) as store:
        number = 0
        while True:
            event_id = await store.register_event(f"b{number % 7}", Loading(), DroneTime(number))
            print("registered", event_id, flush=True)
            if number % 3 == 0:
                await store.ack_events([event_id])
                print("acknowledged", event_id, flush=True)
            number += 1

asyncio.run(main(Path(sys.argv[1])))
"""


# Each life begins with the start of a Python, which is what takes the time.
DEATHS = 40


async def test_no_durable_event_is_lost_by_sigkill(tmp_path: Path) -> None:
    chance = random.Random(20261124)
    path = tmp_path / "drone.sqlite"
    registered: set[int] = set()
    acknowledged: set[int] = set()
    last_of_each: set[int] = set()
    for _ in range(DEATHS):
        with subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(chance.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        printed = [line.split() for line in lines if line.endswith("\n")]
        ids = [int(number) for what, number in printed if what == "registered"]
        # Ids rise, over all deaths: none is ever given twice.
        assert ids == sorted(set(ids))
        assert not registered or min(ids) > max(registered)
        registered |= set(ids)
        last_of_each |= set(ids[-1:])
        acknowledged |= {int(number) for what, number in printed if what == "acknowledged"}
    replayed: list[BackendEvent] = []
    async with open_state_store(path) as store:
        await store.register_listener(replayed.append)
    received = [event.event_id for event in replayed]
    assert received == sorted(set(received))
    assert not acknowledged & set(received)
    # Only the last event of a run may be neither acknowledged nor replayed: its acknowledgement was stored, not
    # printed.
    assert registered - acknowledged - set(received) <= last_of_each
    # Some lives were longer than one event.
    assert len(registered) > DEATHS


async def test_the_store_has_the_recorded_tables_and_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "drone.sqlite"
    async with open_state_store(path) as store:
        await store.register_event("b", Ready(address="127.0.0.1:22065"), DroneTime(1))
    assert path.stat().st_mode & 0o777 == int(RECORDED["mode"], 8)
    with sqlite3.connect(path) as connection:
        for table in ("backend", "event"):
            names = ("cid", "name", "type", "notnull", "default", "pk")
            columns = [dict(zip(names, row, strict=True)) for row in connection.execute(f"PRAGMA table_info({table})")]
            assert columns == RECORDED["tables"][table]["columns"]
        stored = connection.execute("SELECT state FROM backend").fetchone()[0]
    connection.close()
    assert json.loads(stored) == json.loads(RECORDED["tables"]["backend"]["rows"][0][1])


async def test_the_store_of_an_original_drone_is_readable(tmp_path: Path) -> None:
    """A file that an original drone left is adopted."""
    path = tmp_path / "drone.sqlite"
    async with open_state_store(path):
        pass
    with sqlite3.connect(path) as connection:
        for row in RECORDED["tables"]["backend"]["rows"]:
            connection.execute("INSERT INTO backend VALUES (?, ?)", row)
        connection.execute("PRAGMA foreign_keys = OFF")
        for row in RECORDED["tables"]["event"]["rows"]:
            connection.execute("INSERT INTO event VALUES (?, ?, ?, ?)", row)
    connection.close()
    replayed: list[BackendEvent] = []
    async with open_state_store(path) as store:
        assert list(await store.active_runs()) == ["k6xqveyu5dhqvw"]
        await store.register_listener(replayed.append)
    assert [codec.to_builtins(event.state)["exit_code"] for event in replayed] == [3]


async def test_an_unusable_file_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"not a database" * 1000)
    for path in (tmp_path / "garbage", tmp_path / "no" / "folder", tmp_path):
        with pytest.raises(ConfigurationError, match="--db: the state store"):
            async with open_state_store(path):
                pass


async def test_a_stored_event_is_sent_although_its_caller_was_cancelled(tmp_path: Path) -> None:
    async with open_state_store(None) as store:
        received: list[BackendEvent] = []
        await store.register_listener(received.append)
        caller = asyncio.create_task(store.register_event("b", Loading(), DroneTime(1)))
        await asyncio.sleep(0)
        caller.cancel()
        while not received:
            await asyncio.sleep(0.001)
        assert received[0].state == Loading()
        replaced: list[BackendEvent] = []
        await store.register_listener(replaced.append)
        await store.register_event("b", Loading(), DroneTime(1))
        assert (len(received), len(replaced)) == (1, 2)


ORDER = SpawnOrder(
    executable={"command": ["x"], "env": {"SECRET": "s"}},
    key=AcquiredKey(KeyConfig("k"), KeyDeadlines(DroneTime(1), DroneTime(2), DroneTime(3)), 7),
)
ENDED = Terminated(last_status=Status.READY, exit_code=0)


async def test_the_order_of_a_backend_is_stored_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "drone.sqlite"
    later = KeyDeadlines(DroneTime(31), DroneTime(32), DroneTime(33))
    async with open_state_store(path) as store:
        assert await store.clock_reading() is None
        await store.store_clock(ClockReading("boot", 5))
        await store.store_clock(ClockReading("boot", 6))
        await store.begin_backend("b", [Scheduled()], DroneTime(1), ORDER)
        await store.register_event("b", Ready(address="127.0.0.1:1"), DroneTime(2), handle={"pid": 1})
        await store.store_deadlines({"b": later, "unknown": later})
    async with open_state_store(path) as store:
        assert await store.clock_reading() == ClockReading("boot", 6)
        run = (await store.active_runs())["b"]
        assert run.state == Ready(address="127.0.0.1:1")
        assert run.handle == {"pid": 1}
        assert run.order == msgspec.structs.replace(ORDER, key=msgspec.structs.replace(ORDER.key, deadlines=later))
        await store.register_event("b", ENDED, DroneTime(3))
        assert await store.active_runs() == {}
    assert b"SECRET" not in path.read_bytes()


async def test_a_new_backend_and_its_first_states_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    async with open_state_store(tmp_path / "drone.sqlite") as store:
        received: list[BackendEvent] = []
        await store.register_listener(received.append)
        await store.begin_backend("b", [Scheduled(), Loading()], DroneTime(1), ORDER)
        assert [(event.event_id, event.state) for event in received] == [(1, Scheduled()), (2, Loading())]
        assert await store.backend_state("b") == Loading()
        with pytest.raises(sqlite3.IntegrityError):
            await store.begin_backend("b", [Scheduled()], DroneTime(2), ORDER)
        assert len(received) == 2
        assert await store.backend_state("b") == Loading()


async def test_ended_backends_are_deleted_once_acknowledged_and_an_hour_old(tmp_path: Path) -> None:
    hour = DroneTime(3_600_000)
    async with open_state_store(tmp_path / "drone.sqlite") as store:
        ids = {}
        for name, at in (("acknowledged", 0), ("unacknowledged", 0), ("young", 1000)):
            await store.begin_backend(name, [Scheduled()], DroneTime(0), ORDER)
            ids[name] = await store.register_event(name, ENDED, DroneTime(at))
            await store.ack_events([ids[name] - 1])
        await store.register_event("runs", Ready(address="127.0.0.1:1"), DroneTime(0))
        for name in ("acknowledged", "young"):
            await store.ack_events([ids[name]])
        assert await store.delete_ended(hour, 3600) == ["acknowledged"]
        with pytest.raises(UnknownBackend):
            await store.backend_state("acknowledged")
        assert await store.backend_state("unacknowledged") == ENDED
        await store.ack_events([ids["unacknowledged"]])
        assert sorted(await store.delete_ended(hour.plus_s(1), 3600)) == ["unacknowledged", "young"]
        assert list(await store.active_runs()) == ["runs"]


async def test_ended_backends_of_an_original_drone_are_deleted_too(tmp_path: Path) -> None:
    path = tmp_path / "drone.sqlite"
    async with open_state_store(path):
        pass
    with sqlite3.connect(path) as connection:
        for row in RECORDED["tables"]["backend"]["rows"]:
            connection.execute("INSERT INTO backend VALUES (?, ?)", row)
    connection.close()
    async with open_state_store(path) as store:
        assert await store.delete_ended(DroneTime(0), 3600) == []
        forgotten = await store.delete_ended(DroneTime(3_600_000), 3600)
        assert len(forgotten) == len(RECORDED["tables"]["backend"]["rows"]) - 1
        run = (await store.active_runs())["k6xqveyu5dhqvw"]
        assert (run.order, run.handle) == (None, None)


async def test_two_drones_cannot_use_one_store(tmp_path: Path) -> None:
    async with open_state_store(tmp_path / "drone.sqlite"):
        with pytest.raises(ConfigurationError, match="another drone"):
            async with open_state_store(tmp_path / "drone.sqlite", wait_s=0.1):
                pass
    async with open_state_store(tmp_path / "drone.sqlite"):
        pass


async def test_events_are_replayed_in_the_order_of_their_ids_and_not_of_their_times(tmp_path: Path) -> None:
    path = tmp_path / "drone.sqlite"
    async with open_state_store(path) as store:
        for at in (5000, 1000, 3000):
            await store.register_event("b", Loading(), DroneTime(at))
    replayed: list[BackendEvent] = []
    async with open_state_store(path) as store:
        await store.register_listener(replayed.append)
    assert [(event.event_id, event.timestamp.ms) for event in replayed] == [(1, 5000), (2, 1000), (3, 3000)]


async def test_a_drone_has_a_name_although_the_store_is_not_writable(tmp_path: Path) -> None:
    path, other = tmp_path / "drone.sqlite", NodeName("dr-other")
    async with open_state_store(path) as store:
        name = await resolve_name(None, store)
        assert name.startswith("dr-")
        assert await resolve_name(None, store) == name
        await store._run(lambda: store._connection.execute("PRAGMA query_only = ON"))
        assert await resolve_name(other, store) == other
    async with open_state_store(path) as store:
        assert await resolve_name(None, store) == name
        assert await resolve_name(other, store) == other
        assert await resolve_name(None, store) == other


async def test_a_store_whose_lock_file_was_deleted_is_still_in_use(tmp_path: Path) -> None:
    path = tmp_path / "drone.sqlite"
    other_path = tmp_path / "hard-link.sqlite"
    async with open_state_store(path):
        (tmp_path / "drone.sqlite.lock").unlink()
        other_path.hardlink_to(path)
        for each in (path, other_path):
            with pytest.raises(ConfigurationError, match="is in use by another drone"):
                async with open_state_store(each, wait_s=0):
                    pass
    async with open_state_store(path, wait_s=0):
        pass
