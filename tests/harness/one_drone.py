"""A machine with one real drone, which can be killed, stopped and started again, and a controller with short leases."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.clusters import AS_DRONE, BACKEND, GRACE_S, end_backends, exposed, until
from harness.enforcers import aged_clock
from harness.fake_controller import FakeController, fake_controller
from harness.program import Program, program
from plane.drone.state_store import open_state_store
from plane.protocol.names import Prefix
from plane.random_ids import random_name

__all__ = ["OneDrone", "one_drone"]


class OneDrone:
    """``runtime``: options of the drone that say what runs its backends. ``db`` None: the drone has no state store."""

    def __init__(self, controller: FakeController, folder: Path, stack: ExitStack, runtime: tuple[str, ...]) -> None:
        self.controller = controller
        self.db: Path | None = folder / "drone.sqlite"
        self.name = random_name(Prefix.DRONE)
        self.engine: Path | None = None
        self._folder = folder
        self._stack = stack
        self._runtime = runtime

    def start(
        self, *options: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] = MappingProxyType({})
    ) -> Program:
        """Start a drone, and return once it is connected. ``prefix``: a command that becomes the drone."""
        if self.db is not None and not self.db.exists():
            asyncio.run(_store_with_aged_clock(self.db))
        before = self.controller.sessions
        nodes = ("--controller-url", self.controller.url, "--cluster", "localhost:1", "--name", self.name)
        store = () if self.db is None else ("--db", str(self.db))
        arguments = [
            "drone",
            *nodes,
            *self._runtime,
            *store,
            "--soft-terminate-grace",
            str(GRACE_S),
            *exposed(),
            *AS_DRONE,
        ]
        running = program([*arguments, *options], self._folder, "drone", *prefix, **environment)
        drone = self._stack.enter_context(running)
        until(lambda: self.controller.sessions > before)
        return drone

    def spawn(self, mode: str = "stubborn", **fields: Any) -> str:
        """A process that is ready; returns the backend's id. ``fields``: of its executable."""
        command = fields.pop("command", [sys.executable, "-c", "import os; exec(os.environ['CODE'])"])
        env = {"CODE": BACKEND, "MODE": mode, **fields.pop("env", {})}
        return self.spawn_executable({"command": command, "env": env, **fields})

    def spawn_executable(self, executable: Any) -> str:
        """Anything that gets ready; returns the backend's id."""
        backend = random_name(Prefix.BACKEND)
        self._stack.callback(end_backends, [backend], self.engine)
        self.controller.spawn(backend, executable)
        return backend

    def watchdogs(self, drone: Program) -> list[int]:
        """The watchdogs that ``drone`` has started and that run, by the parent's id or what is left of it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if b"plane.drone.watchdog.main" in path.read_bytes() and self._is_ours(path.parent, drone):
                    found.append(int(path.parent.name))
        return found

    @staticmethod
    def _is_ours(process: Path, drone: Program) -> bool:
        # A watchdog writes to the log of the drone that started it.
        return (process / "fd/2").resolve() == drone.log.resolve()

    def seconds_past_hard_deadline(self, backend: str) -> float:
        """Seconds since the hard deadline that the drone was given last; its clock is the time of day here."""
        return time.time() - self.controller.hard_deadlines[backend] / 1000


async def _store_with_aged_clock(db: Path) -> None:
    """Leases that are shorter than a real one seem to have begun long ago, so the drone's clock must be as old."""
    async with open_state_store(db) as store:
        await store.store_clock(aged_clock().reading)


@contextmanager
def one_drone(
    folder: Path, *runtime: str, lease_s: tuple[float, float, float], engine: Path | None = None
) -> Iterator[OneDrone]:
    """``lease_s``: until the renewal, the soft and the hard end. ``engine``: a Docker engine's socket."""
    renew_s, soft_s, hard_s = lease_s
    with fake_controller(renew_s=renew_s, soft_s=soft_s, hard_s=hard_s) as controller, ExitStack() as stack:
        machine = OneDrone(controller, folder, stack, runtime)
        machine.engine = engine
        yield machine
