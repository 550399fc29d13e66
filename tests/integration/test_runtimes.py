"""The suite of all runtimes: memory, processes with and without bubblewrap, and Docker."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from harness.clusters import BACKEND
from plane.dev.demo import visible_folders
from plane.runtime.base import BackendFailed, Runtime, RuntimeListener, SpawnRequest, StartupTimedOut
from plane.runtime.docker.config import ContainerDefaults
from plane.runtime.docker.engine import engine_is_available
from plane.runtime.docker.runtime import DockerRuntime
from plane.runtime.logs.collector import LogCollector
from plane.runtime.memory import MemoryRuntime
from plane.runtime.process import environments
from plane.runtime.process.bubblewrap import bubblewrap_works
from plane.runtime.process.runtime import ProcessRuntime
from plane.tasks import end_tasks

LIMIT_S = 20.0
# A backend that responds does so sooner, also on a busy machine.
STARTUP_LIMIT_S = 5.0
# Python and this checkout may be below /tmp.
VISIBLE = visible_folders()


class Subject:
    """A runtime, the exits that it reported, and the executables that it understands."""

    def __init__(self) -> None:
        self.exits: list[tuple[str, int | None, str | None]] = []
        self.runtime: Runtime
        self.image: str | None = None

    def on_exit(self, backend: str, code: int | None, message: str | None) -> None:
        self.exits.append((backend, code, message))

    def executable(self, mode: str = "") -> dict[str, Any]:
        if isinstance(self.runtime, MemoryRuntime):
            return {"ignores_stop": mode == "stubborn", "fail": "start" if mode == "silent" else None}
        env = {"CODE": BACKEND, "MODE": mode}
        if self.image is not None:
            return {"image": self.image, "pull_policy": "Never", "env": env}
        return {"command": [sys.executable, "-c", "import os; exec(os.environ['CODE'])"], "env": env}

    async def start(self, backend: str, mode: str = "") -> int:
        executable = await self.runtime.prepare(self.executable(mode))
        port = await self.runtime.spawn(SpawnRequest(backend, executable))
        await self.runtime.wait_for_backend(backend, "127.0.0.1", port)
        return port

    async def until_exit(self) -> tuple[str, int | None, str | None]:
        async with asyncio.timeout(LIMIT_S):
            while not self.exits:
                await asyncio.sleep(0.01)
        return self.exits[0]


@pytest.fixture(params=["memory", "process", "bubblewrap", "docker"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    it = Subject()
    match request.param:
        case "memory":
            it.runtime = MemoryRuntime()
        case "docker":
            it.image = request.getfixturevalue("docker_image")
            it.runtime = DockerRuntime(
                LogCollector(),
                request.getfixturevalue("docker_engine"),
                defaults=ContainerDefaults(drone="dr-test", cluster="test"),
                grace_s=2.0,
                startup_timeout_s=STARTUP_LIMIT_S,
            )
        case kind:
            if kind == "bubblewrap" and not await bubblewrap_works():
                real_parts.missing("bubblewrap")
            bubblewrap = kind == "bubblewrap"
            it.runtime = ProcessRuntime(
                LogCollector(),
                bubblewrap=bubblewrap,
                exposed=VISIBLE,
                grace_s=1.5,
                startup_timeout_s=STARTUP_LIMIT_S,
            )
    await it.runtime.start(RuntimeListener(it.on_exit))
    running = asyncio.create_task(it.runtime.run())
    yield it
    await it.runtime.close(leave_running=False)
    await end_tasks([running])
    # The HTTP client of Docker closes its sockets a moment after itself.
    await asyncio.sleep(0.1)


def name(subject: Subject, what: str) -> str:
    return f"{what}-{subject.runtime.name}-{os.getpid()}"


async def test_a_soft_termination_is_reported_by_one_exit(subject: Subject) -> None:
    backend = name(subject, "soft")
    await subject.start(backend, "graceful")
    assert await subject.runtime.terminate(backend, hard=False) is True
    assert (await subject.until_exit())[:2] == (backend, 0)
    await asyncio.sleep(0.2)
    assert len(subject.exits) == 1
    assert await subject.runtime.terminate(backend, hard=True) is False


async def test_a_backend_that_ignores_sigterm_is_killed_after_the_grace_period(subject: Subject) -> None:
    backend = name(subject, "stubborn")
    await subject.start(backend, "stubborn")
    assert await subject.runtime.terminate(backend, hard=False) is True
    assert (await subject.until_exit())[:2] == (backend, 137)


async def test_a_hard_termination_kills_the_backend(subject: Subject) -> None:
    backend = name(subject, "hard")
    await subject.start(backend, "stubborn")
    assert await subject.runtime.terminate(backend, hard=True) is True
    assert (await subject.until_exit())[:2] == (backend, 137)


async def test_a_backend_that_never_listens_times_out_and_an_unknown_one_is_not_running(subject: Subject) -> None:
    backend = name(subject, "silent")
    with pytest.raises(StartupTimedOut):
        await subject.start(backend, "silent")
    assert await subject.runtime.terminate(backend, hard=True) is True
    await subject.until_exit()
    assert await subject.runtime.terminate("unknown", hard=False) is False
    await subject.runtime.remove_orphan("unknown")


async def test_a_cancelled_start_leaves_nothing_running(subject: Subject) -> None:
    backend = name(subject, "cancelled")
    caller = asyncio.create_task(subject.runtime.spawn(SpawnRequest(backend, subject.executable("stubborn"))))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    if await subject.runtime.terminate(backend, hard=True):
        await subject.until_exit()
    assert await subject.runtime.terminate(backend, hard=True) is False


async def test_an_invalid_executable_is_refused_by_its_field(subject: Subject) -> None:
    if isinstance(subject.runtime, MemoryRuntime):
        with pytest.raises(BackendFailed):
            await subject.runtime.prepare({"fail": "prepare"})
        return
    # No name that could be the beginning of an image's id.
    nowhere = {"command": ["a"], "image": "nowhere", "mount": "x"}
    for executable in ({}, {"command": 1, "image": 1}, "x", None, nowhere):
        with pytest.raises(BackendFailed, match="executable"):
            await subject.runtime.prepare(executable)


async def test_a_missing_engine_is_not_available(tmp_path: Path) -> None:
    assert not await engine_is_available(tmp_path / "none")


# Leaves its parent, its session and its environment, as a daemon does, and writes its process id.
DAEMON = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
code = "import os, time; print('daemon', os.getpid(), flush=True); time.sleep(600)"
os.execve(sys.executable, [sys.executable, "-S", "-c", code], {})
"""


def runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("how", ["ends", "killed", "orphaned"])
async def test_a_daemon_ends_with_its_backend_without_cgroups_and_bubblewrap(tmp_path: Path, how: str) -> None:
    exits: list[str] = []
    runtime = ProcessRuntime(LogCollector(tmp_path), bubblewrap=False)
    await runtime.start(RuntimeListener(lambda *exited: exits.append(exited[0])))
    running = asyncio.create_task(runtime.run())
    backend = f"daemon-{how}-{os.getpid()}"
    script = f'{sys.executable} -S -c "$DAEMON"; sleep {2 if how == "ends" else 600}'
    await runtime.spawn(SpawnRequest(backend, {"command": ["sh", "-c", script], "env": {"DAEMON": DAEMON}}))
    async with asyncio.timeout(LIMIT_S):
        while not (lines := (await runtime.read_logs(backend, None, None, 1)).lines):
            pass
        daemon = int(lines[0].text.split()[1])
        assert runs(daemon)
        if how == "killed":
            await runtime.terminate(backend, hard=True)
        elif how == "orphaned":
            # As the drone's next process does if the backend is not in its store.
            await runtime.remove_orphan(backend)
        while not exits:
            await asyncio.sleep(0.01)
    assert not runs(daemon)
    await runtime.close(leave_running=False)
    await end_tasks([running])


async def test_the_limits_of_a_process_are_enforced(tmp_path: Path) -> None:
    exits: list[tuple[str, int | None, str | None]] = []
    runtime = ProcessRuntime(LogCollector(), bubblewrap=False)
    await runtime.start(RuntimeListener(lambda *exited: exits.append(exited)))
    code = "open('big', 'wb').write(b'x' * 10_000_000)"
    executable = {
        "command": [sys.executable, "-c", code],
        "cwd": str(tmp_path),
        "resource_limits": {"disk_limit_bytes": 1_000_000, "memory_limit_bytes": 2**32, "cpu_time_limit": 5},
    }
    await runtime.prepare(executable)
    await runtime.spawn(SpawnRequest("limited", executable))
    async with asyncio.timeout(LIMIT_S):
        while not exits:
            await asyncio.sleep(0.01)
    assert exits[0][1] != 0
    assert (tmp_path / "big").stat().st_size <= 1_000_000
    await runtime.close(leave_running=False)


async def test_an_exit_is_reported_although_another_process_holds_the_lock_of_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    read = environments._environment

    def environment(pid: int) -> list[bytes]:
        if pid == os.getppid():
            released.wait(60)
        return read(pid)

    monkeypatch.setattr(environments, "_environment", environment)
    exited = asyncio.Event()
    runtime = ProcessRuntime(LogCollector(tmp_path), bubblewrap=False)
    await runtime.start(RuntimeListener(lambda *_: exited.set(), lambda _: None, lambda *_: None))
    await runtime.spawn(SpawnRequest("ba-ends", {"command": ["true"]}))
    try:
        async with asyncio.timeout(LIMIT_S):
            await exited.wait()
    finally:
        released.set()
        await runtime.close(leave_running=False)
