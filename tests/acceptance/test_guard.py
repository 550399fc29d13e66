"""A drone that never comes back: its guard ends its processes when their leases are over, and does nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clusters import BACKEND, GRACE_S, end_backends, exposed, processes_of, until
from harness.fake_controller import FakeController, fake_controller
from harness.program import Program, program
from plane import timing
from plane.drone.clock import DroneClock
from plane.drone.guarded_backends import read_guarded
from plane.identity import random_name
from plane.protocol.names import Prefix

# A lease in this file: the gaps are for a slow machine.
RENEW_S, SOFT_S, HARD_S = 1.0, 4.0, 5.5
LIMIT_S = timing.KEY_LEASE_S


class Machine:
    """A machine with one drone, which can be started again."""

    def __init__(self, controller: FakeController, folder: Path, isolation: str, stack: ExitStack) -> None:
        self.controller = controller
        self.db = folder / "drone.sqlite"
        self._isolation = isolation
        self._folder = folder
        self._stack = stack

    def start(self, *options: str) -> Program:
        """Start a drone, and return once it is connected."""
        before = self.controller.sessions
        nodes = ("--controller-url", self.controller.url, "--cluster", "localhost:1", "--name", "dr-guarded")
        grace = ("--soft-terminate-grace", str(GRACE_S))
        arguments = ["drone", *nodes, "--runtime", "process", "--db", str(self.db), *grace, *exposed(), *options]
        drone = self._stack.enter_context(program(arguments, self._folder, "drone"))
        until(lambda: self.controller.sessions > before)
        return drone

    def spawn(self, mode: str = "stubborn") -> str:
        """A backend that is ready; returns its id."""
        backend = random_name(Prefix.BACKEND)
        command = [sys.executable, "-c", "import os; exec(os.environ['CODE'])"]
        env = {"CODE": BACKEND, "MODE": mode}
        self._stack.callback(end_backends, [backend], None)
        self.controller.spawn(backend, {"command": command, "env": env, "isolation": self._isolation})
        return backend

    def guards(self) -> list[int]:
        """The guards of this machine's drone."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"plane.drone.guard" in words and os.fsencode(self.db) in words:
                    found.append(int(path.parent.name))
        return found

    def past_the_deadline_s(self, backend: str) -> float:
        """Seconds since the hard deadline of the backend's key, by the drone's clock and as the drone stored it."""
        reading, backends = read_guarded(self.db)
        (hard,) = (known.deadlines.hard_terminate_at for known in backends if known.backend_id == backend)
        return hard.seconds_until(DroneClock(reading).now())


@pytest.fixture(params=["none", "bubblewrap"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with fake_controller(renew_s=RENEW_S, soft_s=SOFT_S, hard_s=HARD_S) as controller, ExitStack() as stack:
        yield Machine(controller, tmp_path, request.param, stack)


def test_a_drone_that_was_killed_and_never_comes_back(machine: Machine) -> None:
    drone = machine.start()
    stubborn, graceful = machine.spawn("stubborn"), machine.spawn("graceful")
    assert len(machine.guards()) == 1
    drone.stop(signal.SIGKILL)
    until(lambda: not processes_of(graceful), LIMIT_S)
    assert processes_of(stubborn)
    until(lambda: not processes_of(stubborn), LIMIT_S)
    # Not while its key was held, and before anybody else could hold it.
    late_s = machine.past_the_deadline_s(stubborn)
    assert 0 <= late_s < timing.KEY_LEASE_S - timing.KEY_HARD_TERMINATE_AFTER_S
    until(lambda: not machine.guards())

    machine.start()
    until(lambda: {machine.controller.state(name)["status"] for name in (graceful, stubborn)} == {"terminated"})
    assert machine.controller.state(graceful)["exit_code"] == 0
    assert machine.controller.state(stubborn)["exit_code"] == 128 + signal.SIGKILL
    drone.says("no drone, and key's lease is over; backend is killed", times=1)


def test_a_drone_that_comes_back_in_time(machine: Machine) -> None:
    drone = machine.start()
    kept = machine.spawn()
    processes = processes_of(kept)
    first, guards = machine.controller.hard_deadlines[kept], machine.guards()
    drone.stop(signal.SIGKILL)
    drone = machine.start()
    # One guard has the other's place, also if it had begun to look.
    until(lambda: len(machine.guards()) == 1 and machine.guards() != guards)
    # The new drone renews the key, and nothing is ended when the former drone's lease would have been over.
    until(lambda: machine.controller.hard_deadlines[kept] > first + 1000 * HARD_S, LIMIT_S)
    assert processes_of(kept) == processes

    # A guard that dies is missed, and the next one does the same.
    os.kill(machine.guards()[0], signal.SIGKILL)
    drone.says("guard ended; another is started")
    until(lambda: len(machine.guards()) == 1)
    drone.stop(signal.SIGKILL)
    until(lambda: not processes_of(kept), LIMIT_S)


def test_a_drone_that_is_stopped(machine: Machine) -> None:
    assert machine.start().stop() == 0
    until(lambda: not machine.guards())
    drone = machine.start()
    left = machine.spawn()
    assert drone.stop() == 0
    assert len(machine.guards()) == 1
    drone = machine.start("--terminate-on-exit")
    until(lambda: not machine.guards())
    assert not processes_of(left)
    assert drone.stop() == 0
    assert not machine.guards()
