"""A port belongs to one running backend of the machine, and only a backend's own processes make it ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness import real_parts
from harness.clusters import BACKEND, until
from harness.ports import free_port
from plane.decisions.backends.port_selection import PortRange
from plane.dev.demo import visible_folders
from plane.runtime.base import BackendFailed, RuntimeListener, SpawnRequest, StartupTimedOut
from plane.runtime.logs.collector import LogCollector
from plane.runtime.network.listeners import foreign_listener
from plane.runtime.network.ports import Ports
from plane.runtime.process.bubblewrap import bubblewrap_works
from plane.runtime.process.runtime import ProcessRuntime
from plane.timing import PORT_MIN_QUARANTINE_S

LIMIT_S = 30.0
SLEEP = {"command": ["sleep", "60"]}
PROGRAM = {"command": [sys.executable, "-c", "import os; exec(os.environ['CODE'])"], "env": {"CODE": BACKEND}}


def some_ports(count: int) -> PortRange:
    """Ports that no other test uses at the same time, most likely."""
    first = free_port()
    first = first if first + count < 65_535 else first - count
    return PortRange(first, first + count - 1)


@pytest.fixture(params=[False, True], ids=["plain", "bubblewrap"])
async def bubblewrap(request: pytest.FixtureRequest) -> bool:
    if request.param and not await bubblewrap_works():
        real_parts.missing("bubblewrap")
    return bool(request.param)


@contextlib.asynccontextmanager
async def runtime(folder: Path | None = None, **options: Any) -> AsyncIterator[ProcessRuntime]:
    it = ProcessRuntime(LogCollector(folder), exposed=visible_folders(), **options)
    await it.start(RuntimeListener(lambda *_: None))
    try:
        yield it
    finally:
        await it.close(leave_running=False)


async def test_bursts_of_two_drones_share_no_port(bubblewrap: bool) -> None:
    # Few more ports than backends: none is allocated twice, although nothing listens there.
    ports = some_ports(40)
    async with (
        runtime(bubblewrap=bubblewrap, ports=ports) as one,
        runtime(bubblewrap=bubblewrap, ports=ports) as other,
    ):
        starts = [it.spawn(SpawnRequest(f"burst-{os.getpid()}-{n}", SLEEP)) for n in range(14) for it in (one, other)]
        given = await asyncio.gather(*starts)
        assert len(set(given)) == 28
        assert all(ports.first <= port <= ports.last for port in given)


async def test_a_burst_of_a_hundred_shares_no_port() -> None:
    async with runtime(bubblewrap=False) as it:
        given = await asyncio.gather(*(it.spawn(SpawnRequest(f"hundred-{os.getpid()}-{n}", SLEEP)) for n in range(100)))
        assert len(set(given)) == 100


async def test_a_port_stays_locked_by_its_backend_without_the_drone(bubblewrap: bool, tmp_path: Path) -> None:
    ports = some_ports(1)
    backend = f"left-{os.getpid()}"
    former = ProcessRuntime(LogCollector(tmp_path), bubblewrap=bubblewrap, ports=ports)
    await former.start(RuntimeListener(lambda *_: None))
    assert await former.spawn(SpawnRequest(backend, SLEEP)) == ports.first
    handle = former.handle(backend)
    await former.close(leave_running=True)
    # Another drone of the machine, and the next process of the same drone.
    async with (
        runtime(bubblewrap=bubblewrap, ports=ports) as stranger,
        runtime(tmp_path, bubblewrap=bubblewrap, ports=ports) as successor,
    ):
        with pytest.raises(BackendFailed, match=r"no port of .* --backend-ports"):
            await stranger.spawn(SpawnRequest("x", SLEEP))
        assert (await successor.adopt(backend, handle)).running
        with pytest.raises(BackendFailed, match="no port"):
            await successor.spawn(SpawnRequest("y", SLEEP))
        await successor.terminate(backend, hard=True)
        async with asyncio.timeout(LIMIT_S):
            while successor.handle(backend) is not None:
                await asyncio.sleep(0.01)
        # It has ended, and its port is quarantined: here, for other drones, and for the drone's next process.
        for it in (stranger, successor):
            with pytest.raises(BackendFailed, match="no port"):
                await it.spawn(SpawnRequest("z", SLEEP))
    async with runtime(tmp_path, bubblewrap=bubblewrap, ports=ports) as next_one:
        with pytest.raises(BackendFailed, match="no port"):
            await next_one.spawn(SpawnRequest("z", SLEEP))


@pytest.mark.parametrize("files", ["present", "lost"])
async def test_the_port_of_a_removed_orphan_is_quarantined(tmp_path: Path, files: str) -> None:
    ports = some_ports(1)
    backend = f"leftover-{os.getpid()}"
    former = ProcessRuntime(LogCollector(tmp_path), bubblewrap=False, ports=ports)
    await former.start(RuntimeListener(lambda *_: None))
    await former.spawn(SpawnRequest(backend, {"command": ["/bin/sh", "-c", "echo ready; sleep 60; true"]}))
    # During its execve(2) a process has no environment by which it can be found. Once the shell writes, it has one.
    async with asyncio.timeout(10):
        while not (tmp_path / backend / "spool").stat().st_size:
            await asyncio.sleep(0.01)
    await former.close(leave_running=True)
    # It has run for long.
    if files == "present":
        os.utime(tmp_path / backend, (0, 0))
    else:
        shutil.rmtree(tmp_path / backend)
    async with runtime(tmp_path, bubblewrap=False, ports=ports) as successor:
        await successor.remove_orphan(backend)
        with pytest.raises(BackendFailed, match="no port"):
            await successor.spawn(SpawnRequest("next", SLEEP))


def test_a_port_is_allocated_again_after_its_quarantine() -> None:
    now = 1_000.0
    ports = Ports(some_ports(1), clock=lambda: now)
    port, _ = ports.allocate()
    ports.release(port)
    now += PORT_MIN_QUARANTINE_S - 1
    with pytest.raises(BackendFailed):
        ports.allocate()
    now += 2.0
    assert ports.allocate()[0] == port
    ports.close()


def test_a_port_of_another_program_is_skipped() -> None:
    ports = some_ports(2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.first))
        other.listen()
        held = Ports(ports)
        assert held.allocate()[0] == ports.last
        with pytest.raises(BackendFailed):
            held.allocate()
        held.close()


async def test_an_isolated_backend_does_not_inherit_the_lock_of_its_port(tmp_path: Path) -> None:
    if not await bubblewrap_works():
        real_parts.missing("bubblewrap")
    logs = LogCollector(tmp_path)
    it = ProcessRuntime(logs, bubblewrap=True)
    await it.start(RuntimeListener(lambda *_: None))
    await it.spawn(SpawnRequest("fds", {"command": ["sh", "-c", "ls -l /proc/self/fd; echo done; sleep 60"]}))
    until(lambda: b"done" in logs.capture_file("fds").read_bytes())
    assert b"socket:" not in logs.capture_file("fds").read_bytes()
    await it.close(leave_running=False)


async def test_a_backend_that_listens_itself_is_ready(bubblewrap: bool) -> None:
    async with runtime(bubblewrap=bubblewrap, startup_timeout_s=LIMIT_S) as it:
        port = await it.spawn(SpawnRequest(f"own-{os.getpid()}", PROGRAM))
        await it.wait_for_backend(f"own-{os.getpid()}", "127.0.0.1", port)


async def test_another_process_does_not_make_a_backend_ready(bubblewrap: bool) -> None:
    async with runtime(bubblewrap=bubblewrap, startup_timeout_s=1.5) as it:
        backend = f"foreign-{os.getpid()}"
        port = await it.spawn(SpawnRequest(backend, SLEEP))
        other = subprocess.Popen([sys.executable, "-m", "http.server", str(port)], stderr=subprocess.DEVNULL)
        try:
            with pytest.raises(StartupTimedOut, match=rf"process {other.pid} \(python.*\) listens on port {port}"):
                await it.wait_for_backend(backend, "127.0.0.1", port)
        finally:
            other.kill()
            other.wait()


async def test_a_child_that_left_its_parent_belongs_to_the_backend() -> None:
    code = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nexec(os.environ['CODE'])"
    executable = {
        "command": ["sh", "-c", f'{sys.executable} -c "$LEAVE"; sleep 60'],
        "env": {"CODE": BACKEND, "LEAVE": code},
    }
    async with runtime(bubblewrap=False, startup_timeout_s=LIMIT_S) as it:
        port = await it.spawn(SpawnRequest(f"left-{os.getpid()}", executable))
        await it.wait_for_backend(f"left-{os.getpid()}", "127.0.0.1", port)


@pytest.mark.parametrize("source", ["sock_diag", "tables"])
def test_a_listener_beside_the_backends_own_is_foreign(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(family: int, port: int) -> None:
        raise OSError

    if source == "tables":
        monkeypatch.setattr("plane.runtime.network.listeners._diagnosed", unsupported)
    # SO_REUSEPORT lets both listen, and the kernel spreads connections over them.
    with socket.socket() as own, contextlib.ExitStack() as stack:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(("127.0.0.1", 0))
        own.listen()
        port = own.getsockname()[1]
        assert foreign_listener(port, [os.getpid()], lambda pid: False) is None
        code = (
            "import socket, sys, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
            "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print(1, flush=True); time.sleep(60)"
        )
        other = stack.enter_context(subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.PIPE))
        stack.callback(other.send_signal, signal.SIGKILL)
        assert other.stdout is not None
        other.stdout.readline()
        assert foreign_listener(port, [os.getpid()], lambda pid: False) in (
            f"process {other.pid} (python)",
            f"process {other.pid} ({Path(sys.executable).resolve().name})",
        )
        assert foreign_listener(port, [os.getpid()], lambda pid: pid == other.pid) is None
