"""The guard on a state store that the test has written, and real processes: what it kills, and what it never does."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clusters import until
from plane.drone.clock import DroneClock
from plane.drone.guard import Guard, place_of
from plane.drone.guard_keeper import dismiss_guard
from plane.drone.state_store import open_state_store
from plane.identity import random_name
from plane.protocol.backend_state import Ready, Scheduled
from plane.protocol.drone_messages import SpawnOrder
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.names import Prefix
from plane.runtime.processes import start_time


class World:
    """A store, and processes that may be those of its backends."""

    def __init__(self, db: Path, stack: ExitStack) -> None:
        self.db = db
        self._stack = stack

    def process(self, backend: str | None) -> subprocess.Popen[bytes]:
        """One that runs for as long as nobody ends it; marked as a backend's, or nobody's."""
        env = {**os.environ} if backend is None else {**os.environ, "SESSION_BACKEND_ID": backend}
        process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, env=env)

        def end() -> None:
            process.kill()
            process.communicate()

        self._stack.callback(end)
        return process

    async def store(self, backend: str, hard_s: float, process: subprocess.Popen[bytes], *, ticks: int = 0) -> None:
        """Store a ready backend whose key's hard deadline is in ``hard_s``.

        ``ticks``: how much later its supervisor is said to have started than ``process``.
        """
        async with open_state_store(self.db) as store:
            clock = DroneClock()
            await store.keep_clock(clock.reading)
            at = clock.now().plus_s(hard_s)
            order = SpawnOrder({}, AcquiredKey(KeyConfig(backend), KeyDeadlines(at, at, at), 1))
            await store.begin_backend(backend, [Scheduled()], clock.now(), order)
            handle = {"pid": process.pid, "started_at": start_time(process.pid) + ticks, "bubblewrap": False}
            await store.register_event(backend, Ready(address="127.0.0.1:1"), clock.now(), handle=handle)

    def guard(self) -> threading.Thread:
        """A guard that acts."""
        thread = threading.Thread(target=Guard(self.db).guard, daemon=True)
        thread.start()
        self._stack.callback(thread.join, 10)
        self._stack.callback(dismiss_guard, self.db)
        return thread


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path / "drone.sqlite", stack)


@pytest.fixture
def backend() -> str:
    return random_name(Prefix.BACKEND)


async def test_it_ends_what_is_over_and_then_itself(world: World, backend: str) -> None:
    supervisor, marked, other = world.process(None), world.process(backend), world.process(random_name(Prefix.BACKEND))
    await world.store(backend, -1, supervisor)
    guard = world.guard()
    guard.join(10)
    assert not guard.is_alive()
    assert marked.wait(10) == -9
    assert other.poll() is None


async def test_a_process_that_has_the_id_of_one_that_ended_is_let_be(world: World, backend: str) -> None:
    stranger, marked = world.process(None), world.process(backend)
    await world.store(backend, -1, stranger, ticks=-1)
    world.guard().join(10)
    assert marked.wait(10) == -9
    assert stranger.poll() is None


async def test_it_does_nothing_while_a_drone_has_the_store(world: World, backend: str) -> None:
    marked = world.process(backend)
    await world.store(backend, -1, marked)
    with Path(f"{world.db}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        guard = world.guard()
        guard.join(2)
        assert guard.is_alive()
        assert marked.poll() is None
    assert marked.wait(10) == -9


async def test_it_goes_when_another_has_its_place_or_nobody_shall(world: World, backend: str) -> None:
    marked = world.process(backend)
    await world.store(backend, 600, marked)
    first = world.guard()
    second = world.guard()
    until(lambda: not first.is_alive())
    assert second.is_alive()
    dismiss_guard(world.db)
    until(lambda: not second.is_alive())
    assert marked.poll() is None


async def test_a_store_that_cannot_be_read_is_read_when_it_can(
    world: World, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    marked = world.process(backend)
    await world.store(backend, -1, marked)
    kept = world.db.read_bytes()
    world.db.write_bytes(b"no database at all".ljust(len(kept)))
    guard = world.guard()
    guard.join(2)
    assert guard.is_alive()
    assert capfd.readouterr().err.count("cannot read the state store") == 1
    world.db.write_bytes(kept)
    guard.join(10)
    assert marked.wait(10) == -9


@pytest.mark.parametrize("as_json", [False, True])
async def test_what_it_does_is_logged_as_the_drone_logs(
    world: World, backend: str, as_json: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLANE_LOG", raising=False)
    monkeypatch.setenv("PLANE_LOG_JSON", "1" if as_json else "")
    await world.store(backend, -1, world.process(backend))
    world.guard().join(10)
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "lease is over" in line)
    if as_json:
        entry = json.loads(line)
        assert (entry["level"], entry["backend"]) == ("warning", backend)
    else:
        assert "[warning  ] no drone, and key's lease is over; backend is killed" in line
        assert line.endswith(f"backend={backend}")


async def test_a_store_that_was_removed_is_guarded_no_more(world: World, backend: str) -> None:
    await world.store(backend, 600, world.process(backend))
    guard = world.guard()
    world.db.unlink()
    guard.join(10)
    assert not guard.is_alive()
    assert place_of(world.db).exists()
