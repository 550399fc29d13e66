"""A soft termination sends SIGTERM to all processes of a backend, and gives the running ones the grace period."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from plane.dev.demo import visible_folders
from plane.runtime.base import RuntimeListener, SpawnRequest
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process.bubblewrap import bubblewrap_works
from plane.runtime.process.cgroups import Cgroups
from plane.runtime.process.procfs import is_stopped
from plane.runtime.process.runtime import ProcessRuntime
from plane.tasks import end_tasks

LIMIT_S = 20.0
# Begins to save on SIGTERM, and needs half a second.
APP = """
import os, signal, sys, time
def save(*_):
    print("saving", flush=True)
    time.sleep(0.5)
    print("saved", flush=True)
    os._exit(7)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
while True:
    time.sleep(60)
"""
PYTHON = f'"{sys.executable}" -S -c'


IGNORES = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
STUBBORN = ["/bin/sh", "-c", f'{PYTHON} "{IGNORES}"; true']


class Backend:
    """One backend that has written its first line."""

    def __init__(self, runtime: ProcessRuntime, name: str) -> None:
        self.runtime = runtime
        self.name = name
        self.exits: list[tuple[int | None, str | None]] = []

    async def lines(self) -> list[str]:
        return [line.text for line in (await self.runtime.read_logs(self.name, None, None, 0.0)).lines]

    async def until(self, condition: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition(await self.lines()):
                await asyncio.sleep(0.02)

    async def soft_end(self) -> float:
        """Terminate it softly and return how long that took."""
        began = time.monotonic()
        assert await self.runtime.terminate(self.name, hard=False)
        await self.exit()
        return time.monotonic() - began

    async def exit(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not self.exits:
                await asyncio.sleep(0.01)


@pytest.fixture(params=["supervisor", "control group", "bubblewrap"])
async def how(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind == "bubblewrap" and not await bubblewrap_works():
        real_parts.missing("bubblewrap")
    return kind


@asynccontextmanager
async def started(
    how: str, folder: Path, command: list[str], grace_s: float = 10.0, **env: str
) -> AsyncIterator[Backend]:
    cgroups = Cgroups.detect() if how == "control group" else None
    if how == "control group" and cgroups is None:
        pytest.skip("no control groups can be made here")
    name = f"soft-{time.monotonic_ns()}"
    listener = RuntimeListener(lambda _, code, message: backend.exits.append((code, message)))
    runtime = ProcessRuntime(
        LogCollector(folder),
        bubblewrap=how == "bubblewrap",
        cgroups=cgroups,
        exposed=visible_folders(),
        grace_s=grace_s,
    )
    backend = Backend(runtime, name)
    await runtime.start(listener)
    running = asyncio.create_task(runtime.run())
    try:
        await runtime.spawn(SpawnRequest(name, {"command": command, "env": {"APP": APP, **env}}))
        await backend.until(lambda lines: "ready" in lines)
        yield backend
    finally:
        await backend.runtime.close(leave_running=False)
        await end_tasks([running])


WRAPPERS = {
    "none": [sys.executable, "-S", "-c", APP],
    "none, named by bytes that are no text": [
        *(sys.executable, "-S", "-c"),
        "import os; open('/proc/self/comm', 'wb').write(b'\\xff) \\xfe'); exec(os.environ['APP'])",
    ],
    "sh, a list": ["/bin/sh", "-c", f'{PYTHON} "$APP"; echo the wrapper continues'],
    "bash, a folder": ["/bin/bash", "-c", f'cd / && {PYTHON} "$APP" && echo the wrapper continues'],
    "sh, in the background": ["/bin/sh", "-c", f'{PYTHON} "$APP" & wait'],
    "sh, twice": ["/bin/sh", "-c", f"""/bin/sh -c '{PYTHON} "$APP"; true'; true"""],
    "a session of its own": ["/bin/sh", "-c", f'setsid {PYTHON} "$APP"; true'],
    "a thread": [
        *(sys.executable, "-S", "-c"),
        "import os, subprocess, sys, threading\n"
        "run = lambda: subprocess.run([sys.executable, '-S', '-c', os.environ['APP']])\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join()",
    ],
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_children_of_a_wrapper_receive_sigterm_and_the_grace_period(
    how: str, wrapper: str, tmp_path: Path
) -> None:
    async with started(how, tmp_path, WRAPPERS[wrapper]) as backend:
        took_s = await backend.soft_end()
        assert "saved" in await backend.lines()
        assert 0.4 < took_s < 5
        ((code, _),) = backend.exits
        # How the command itself ended: the application, or its wrapper by the signal.
        assert code == (7 if wrapper.startswith("none") else 128 + 15)


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace_period(how: str, tmp_path: Path) -> None:
    async with started(how, tmp_path, STUBBORN, 1.0) as backend:
        assert 0.9 < await backend.soft_end() < 5
        ((code, _),) = backend.exits
        # With bubblewrap's init everything is killed at once.
        assert code == (137 if how == "bubblewrap" else 128 + 15)


async def test_children_forked_during_the_stop_receive_sigterm_too(how: str, tmp_path: Path) -> None:
    # Each child reports its SIGTERM. The parent forks as fast as it can, and receives SIGTERM meanwhile.
    forking = """
import os, signal, sys, time
def report(*_):
    os.write(1, b"signalled %d\\n" % os.getpid())
    os._exit(0)
signal.signal(signal.SIGTERM, report)
for number in range(300):
    # Python forgets a signal that comes while it sets a new child up, and sleeps on if one comes just before it begins
    # to; the kernel keeps one that is blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if os.fork() == 0:
        signal.sigwait([signal.SIGTERM])
        report()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if number == 100:
        print("ready", flush=True)
    time.sleep(0.001)
while True:
    time.sleep(0.001)
"""
    async with started(how, tmp_path, [sys.executable, "-S", "-c", forking], 5.0) as backend:
        assert await backend.soft_end() < 4
        signalled = [line for line in await backend.lines() if line.startswith("signalled")]
        assert len(signalled) > 100
        assert len(set(signalled)) == len(signalled)


async def test_a_process_started_by_a_handler_may_finish(how: str, tmp_path: Path) -> None:
    script = """trap 'sh -c "sleep 0.5; echo saved"; exit 3' TERM; echo ready; while true; do sleep 0.05; done"""
    async with started(how, tmp_path, ["/bin/bash", "-c", script]) as backend:
        await backend.soft_end()
        assert "saved" in await backend.lines()
        assert backend.exits[0][0] == 3


async def test_a_stopped_process_is_continued_to_handle_sigterm(how: str, tmp_path: Path) -> None:
    script = f'{PYTHON} "$APP" & sleep 0.5; kill -STOP $!; echo stopped; wait'
    async with started(how, tmp_path, ["/bin/sh", "-c", script]) as backend:
        await backend.until(lambda lines: "stopped" in lines)
        assert await backend.soft_end() < 5
        assert "saved" in await backend.lines()


async def test_a_hard_termination_ends_a_soft_one_at_once(how: str, tmp_path: Path) -> None:
    async with started(how, tmp_path, STUBBORN) as backend:
        assert await backend.runtime.terminate(backend.name, hard=False)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        assert await backend.runtime.terminate(backend.name, hard=True)
        await backend.exit()
        assert time.monotonic() - began < 5


async def test_the_drones_next_process_continues_a_soft_termination(how: str, tmp_path: Path) -> None:
    """The drone was killed during a soft stop: the supervisor is stopped (SIGSTOP), and the backend ends meanwhile."""
    async with started(how, tmp_path, WRAPPERS["none"]) as backend:
        handle: Any = backend.runtime.handle(backend.name)
        former = backend.runtime
        assert await former.terminate(backend.name, hard=False)
        await backend.until(lambda lines: "saving" in lines)
        await former.close(leave_running=True)
        exits: list[int | None] = []
        listener = RuntimeListener(lambda _, code, message: exits.append(code))
        cgroups = Cgroups.detect() if how == "control group" else None
        runtime = ProcessRuntime(LogCollector(tmp_path), bubblewrap=how == "bubblewrap", cgroups=cgroups)
        await runtime.start(listener)
        backend.runtime = runtime
        await asyncio.sleep(0.8)
        assert is_stopped(handle["pid"]) is (how != "bubblewrap")
        found = await runtime.adopt(backend.name, handle)
        assert found.running
        assert await runtime.terminate(backend.name, hard=False)
        async with asyncio.timeout(LIMIT_S):
            while not exits:
                await asyncio.sleep(0.01)
        assert exits == [7]
