"""One cluster, a drone for each fault, and an observer: no key has two processes at a time, and every backend ends.

The faults happen at the same time, so that all of them wait for one lease.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness import real_parts
from harness.clusters import AS_DRONE, GRACE_S, Cluster, end_backends, exposed, separate_parts, until
from harness.faults import rebooted
from harness.observer import OBSERVED, lives_seen, overlaps
from harness.program import Program, program
from plane import timing

# A drone's backends are given up after two minutes; every row has ended a minute later at most.
ASK_INTERVAL_S = 0.5
ENDED_S = timing.DRONE_LOST_AFTER_S + timing.KEY_LEASE_S
pytestmark = [pytest.mark.xdist_group("one life per key"), pytest.mark.timeout(600)]


@dataclass
class Faulty:
    """A drone that a fault will happen to, with one backend that has the key of its name."""

    name: str
    start: Callable[..., Program]
    folder: Path
    lives: Path
    executable: dict[str, Any]
    drone: Program = field(init=False)
    backend: str = ""
    has_moved: bool = False

    @property
    def store(self) -> Path:
        return self.folder / "drone.sqlite"

    def keep_copy(self) -> None:
        """Copy the state store as it is, with what is not yet in its main file."""
        (self.folder / "copy").mkdir()
        for path in self.folder.glob("drone.sqlite*"):
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, self.folder / "copy")

    def restore_copy(self) -> None:
        self.remove_store()
        for path in (self.folder / "copy").iterdir():
            shutil.copy(path, self.folder)

    def remove_store(self) -> None:
        for path in self.folder.glob("drone.sqlite*"):
            if path.is_file() or path.is_symlink():
                path.unlink()


def stopped(it: Faulty) -> Callable[[], None]:
    it.drone.process.send_signal(signal.SIGSTOP)
    return lambda: it.drone.process.send_signal(signal.SIGCONT)


def killed(it: Faulty) -> Callable[[], None]:
    it.drone.stop(signal.SIGKILL)
    return lambda: None


def store_lost(it: Faulty) -> Callable[[], None]:
    it.drone.stop(signal.SIGKILL)
    it.remove_store()
    it.drone = it.start()
    return lambda: None


def store_rewound(it: Faulty) -> Callable[[], None]:
    it.drone.stop(signal.SIGKILL)
    it.restore_copy()
    it.drone = it.start()
    return lambda: None


def rebooted_at_once(it: Faulty) -> Callable[[], None]:
    """Without its processes, which a boot would end."""
    it.drone.stop(signal.SIGKILL)
    end_backends([it.backend], None)
    it.drone = it.start(prefix=rebooted(it.folder))
    return lambda: None


FAULTS = {
    "stopped": stopped,
    "killed": killed,
    "no-store": killed,
    "container": killed,
    "store-lost": store_lost,
    "store-rewound": store_rewound,
    "rebooted": rebooted_at_once,
}


class World:
    """The cluster, and a drone for each fault in a pool of its own; who asks for a key again gets it elsewhere."""

    def __init__(self, cluster: Cluster, folder: Path, stack: ExitStack) -> None:
        self._cluster = cluster
        self._folder = folder
        self._stack = stack
        self.faulty = {name: self._faulty(name) for name in FAULTS}

    def _faulty(self, name: str) -> Faulty:
        folder = self._folder / name
        folder.mkdir()
        runtime, lives = ["process"], folder / "lives"
        executable = self._cluster.executable(CODE=OBSERVED, LIVES=str(lives))
        if name == "container":
            (folder / "mounts/shared").mkdir(parents=True)
            engine = real_parts.docker_engine()
            runtime = ["docker", "--docker-socket", str(engine), "--mount-base", str(folder / "mounts")]
            lives = folder / "mounts/shared/lives"
            env = {"CODE": OBSERVED, "LIVES": "/plane-data/lives"}
            image = real_parts.docker_image()
            executable = {"image": image, "pull_policy": "Never", "env": env, "mount": "shared"}
        else:
            executable["isolation"] = "none"
        arguments = ["drone", "--controller-url", self._cluster.control_urls[0], "--name", f"dr-{name}"]
        arguments += ["--cluster", f"localhost:{self._cluster.proxy_port}", "--pool", name, "--runtime", *runtime]
        arguments += [*exposed(), *AS_DRONE, "--soft-terminate-grace", str(GRACE_S)]
        if name != "no-store":
            arguments += ["--db", str(folder / "drone.sqlite")]

        def start(*options: str, prefix: tuple[str, ...] = ()) -> Program:
            return self._stack.enter_context(program([*arguments, *options], folder, "drone", *prefix))

        it = Faulty(name, start, folder, lives, executable)
        it.drone = start()
        return it

    def connect(self, it: Faulty, *, elsewhere: bool) -> str | None:
        """Ask for the fault's key; returns the backend, or None if there is no drone for it now."""
        executable = it.executable
        if elsewhere and "image" in executable:
            # The other drone runs processes. Both append to the same file.
            executable = self._cluster.executable(CODE=OBSERVED, LIVES=str(it.lives)) | {"isolation": "none"}
        pool = "" if elsewhere else it.name
        body = {"key": {"name": it.name}, "spawn_config": {"executable": executable, "pool": pool}}
        answer = self._cluster.call("POST", "/ctrl/connect", body)
        if answer.status != 200:
            return None
        backend = str(answer.json()["backend_id"])
        self._cluster.spawned.append(backend)
        return backend

    def place(self, it: Faulty) -> bool:
        """Have the key's first process on the drone that the fault will happen to."""
        it.backend = self.connect(it, elsewhere=False) or ""
        return it.backend != ""

    def all_have_moved(self, faulty: list[Faulty]) -> bool:
        """Ask for the keys as users would; whether another process has each of them, and is ready."""
        time.sleep(ASK_INTERVAL_S)
        for it in faulty:
            if not it.has_moved:
                backend = self.connect(it, elsewhere=True)
                other = backend not in (None, it.backend)
                it.has_moved = other and self._cluster.status(str(backend))["status"] == "ready"
        return all(it.has_moved for it in faulty)


@pytest.fixture
def world(postgres_url: str, tmp_path: Path) -> Iterator[tuple[World, Cluster]]:
    options = ("--terminate-on-exit", *AS_DRONE)
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=options) as cluster, ExitStack() as stack:
        yield World(cluster, tmp_path, stack), cluster


async def test_no_key_has_two_processes_and_every_backend_ends(
    world: tuple[World, Cluster], postgres_url: str, docker_engine: Path
) -> None:
    it, cluster = world
    faulty = list(it.faulty.values())
    for fault in faulty:
        if fault.name == "store-rewound":
            fault.drone.says("connected to controller")
            fault.keep_copy()
        until(partial(it.place, fault))
    for fault in faulty:
        # A container without a name server looks for its own name for a while.
        cluster.until_status(fault.backend, "ready", ENDED_S)
        until(partial(lives_seen, fault.lives))
    recover = [FAULTS[fault.name](fault) for fault in faulty]
    try:
        # Their users ask for them again and again, until each key has another process.
        until(partial(it.all_have_moved, faulty), ENDED_S)
    finally:
        for each in recover:
            each()
    for backend in set(cluster.spawned) - {fault.backend for fault in faulty}:
        cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
    assert await _left(postgres_url) == []
    seen = {fault.name: sorted(lives_seen(fault.lives)) for fault in faulty}
    assert all(len(tokens) >= 2 for tokens in seen.values()), seen
    assert {fault.name: overlaps(fault.lives) for fault in faulty} == {name: [] for name in seen}
    end_backends(cluster.spawned, docker_engine)


async def _left(postgres_url: str) -> list[str]:
    """The backends that have not ended, and do not in time."""
    connection = await asyncpg.connect(postgres_url)
    try:
        for _ in range(round(ENDED_S)):
            rows = await connection.fetch("SELECT id FROM backend WHERE last_status <> 'terminated'")
            if not rows:
                break
            await asyncio.sleep(1)
        return [row["id"] for row in rows]
    finally:
        await connection.close()
