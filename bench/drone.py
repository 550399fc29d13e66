"""The drone against its floors: ``python -m bench.drone``. Parts may be named: ``python -m bench.drone store``.

- ``docker``: `docker run` by hand until the port answers, against an order to the drone until `ready`; interleaved.
- ``processes``: starting a process by hand until its port answers, against an order to the drone until `ready`, without
  isolation, with it, and with a network of its own; interleaved.
- ``readiness``: how long after a port opens it is seen.
- ``store``: registered events per second against bare SQLite with the same durability; interleaved.
- ``start``: opening a store of 5,000 backends against an empty one.
- ``idle``: CPU and memory of a drone with 500 idle processes, whose keys are renewed as ever.

``docker`` starts an engine of its own, as the tests do (root, and `tests` in PYTHONPATH).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from plane import timing
from plane.cli.logs import set_up_logs
from plane.drone.backend_manager import BackendManager
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder
from plane.drone.runtime_choice import Owner, create_runtime
from plane.drone.state_store import StateStore, open_state_store
from plane.drone.watchdog.supervisor import WatchdogSupervisor
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus, Loading, Terminated
from plane.protocol.drone_messages import (
    BackendAction,
    BackendEvent,
    BackendOrder,
    RenewKey,
    RenewKeyResponse,
    SpawnOrder,
)
from plane.protocol.keys import AcquiredKey, KeyConfig, KeyDeadlines
from plane.protocol.names import ClusterName, Prefix
from plane.protocol.times import DroneTime
from plane.random_ids import random_name
from plane.runtime.base import RuntimeListener
from plane.runtime.kill_target import ProcessTarget
from plane.runtime.logs.collector import DEFAULT_LIMIT_BYTES
from plane.runtime.memory import MemoryRuntime
from plane.runtime.readiness import wait_until_ready
from plane.settings import DroneSettings, RuntimeKind
from plane.tasks import end_tasks
from plane.transport.controller_url import ControllerUrl

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "30"))
IDLE_BACKENDS = int(os.environ.get("BENCH_BACKENDS", "500"))
IDLE_S = float(os.environ.get("BENCH_SECONDS", "30"))
STORED = 5_000
EVENTS = 400
# Backends that have events at the same time.
AT_ONCE = 20

SERVER = (
    "import os, socket\ns = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True:\n    c, _ = s.accept(); c.recv(65536)\n"
    "    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); c.close()\n"
)
# One that every user may execute, since backends of a root drone are another user's.
PYTHON = shutil.which("python3", path=os.defpath) or sys.executable
SERVER_COMMAND = [PYTHON, "-S", "-c", SERVER]


class Drone:
    """A drone without a controller: orders come from here, events and renewals go here."""

    def __init__(self, backends: BackendManager, clock: DroneClock) -> None:
        self._backends = backends
        self._clock = clock
        self._until: dict[str, asyncio.Future[BackendStatus]] = {}

    def on_event(self, event: BackendEvent) -> None:
        waiting = self._until.get(event.backend_id)
        if event.state.status in (BackendStatus.READY, BackendStatus.TERMINATED) and waiting and not waiting.done():
            waiting.set_result(event.state.status)

    def deadlines(self) -> KeyDeadlines:
        now = self._clock.now()
        return KeyDeadlines(now.plus_s(30), now.plus_s(40), now.plus_s(50))

    def renew(self, request: RenewKey) -> None:
        self._backends.leases.on_response(RenewKeyResponse(request.backend, self.deadlines()))

    async def spawn(self, executable: Any) -> tuple[str, Awaitable[BackendStatus]]:
        """Order a backend; returns its id, and its status once it is ready or has ended."""
        backend = random_name(Prefix.BACKEND)
        self._until[backend] = asyncio.get_running_loop().create_future()
        key = AcquiredKey(KeyConfig(backend), self.deadlines(), 1)
        order = BackendOrder(spawn=SpawnOrder(executable, key))
        await self._backends.apply(BackendAction(f"ak-{backend}", backend, 1, order))
        return backend, self._until[backend]


@asynccontextmanager
async def drone(folder: Path, kind: RuntimeKind, engine: Path = Path("/nowhere")) -> AsyncIterator[Drone]:
    """All of a drone but its connection, with a durable store."""
    settings = DroneSettings(
        controller_url=ControllerUrl.parse("http://127.0.0.1:1"),
        cluster=ClusterName("bench"),
        db_path=folder / "drone.sqlite",
        terminate_on_exit=True,
        runtime=kind,
        docker_socket=engine,
        expose=(Path(sys.prefix), Path(sys.base_prefix)),
    )
    clock = DroneClock()
    async with open_state_store(settings.db_path) as store:
        recorder = EventRecorder(store, clock)
        watchdog = WatchdogSupervisor(ends_with_drone=True, output_limit_bytes=DEFAULT_LIMIT_BYTES)
        runtime = await create_runtime(settings, Owner("dr-bench", "bench"))
        backends = BackendManager(store, recorder, clock, "127.0.0.1", watchdog, runtime)
        await runtime.start(RuntimeListener(backends.on_exit, on_location=watchdog.locate))
        it = Drone(backends, clock)
        await store.register_listener(it.on_event)
        backends.on_accepted()
        backends.leases.on_connected(it.renew)
        work = (backends.leases.run(), backends.run_maintenance(), recorder.run(), runtime.run(), watchdog.run())
        tasks = [asyncio.create_task(part) for part in work]
        try:
            yield it
        finally:
            backends.refuse_work()
            await backends.terminate_all(5.0)
            await runtime.close(leave_running=False)
            await end_tasks(tasks)


async def bench_docker(folder: Path) -> None:
    from harness.docker_parts import own_docker

    hand: list[float] = []
    plane: list[float] = []
    with own_docker() as engine:
        image = engine.tiny_image("bench:tiny")
        await compare_starts(folder, engine.socket, image, hand, plane)
    above = statistics.median(plane) - statistics.median(hand)
    print(
        f"docker: by hand {statistics.median(hand):.0f} ms, through the drone {statistics.median(plane):.0f} ms, "
        f"above {above:.0f} ms (gate: 60; medians of {ROUNDS})"
    )


async def compare_starts(folder: Path, engine: Path, image: str, hand: list[float], plane: list[float]) -> None:
    async with drone(folder, RuntimeKind.DOCKER, engine) as it:
        for _ in range(ROUNDS):
            hand.append(await by_hand(engine, image))
            start = time.perf_counter()
            _, ready = await it.spawn({"image": image, "pull_policy": "Never"})
            assert await ready is BackendStatus.READY
            plane.append((time.perf_counter() - start) * 1000)


async def by_hand(engine: Path, image: str) -> float:
    """Milliseconds from `docker run` until the published port responds to HTTP."""
    docker = ["docker", "-H", f"unix://{engine}"]

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(*docker, *arguments, stdout=subprocess.PIPE)
        return (await process.communicate())[0].decode()

    start = time.perf_counter()
    container = (await run("run", "-d", "-p", "0:8080", image)).strip()
    port = int((await run("port", container, "8080")).splitlines()[0].rpartition(":")[2])
    await wait_until_ready("127.0.0.1", port, 30.0)
    took_ms = (time.perf_counter() - start) * 1000
    await run("rm", "-f", container)
    return took_ms


async def bench_processes(folder: Path) -> None:
    hand: list[float] = []
    kinds = {
        "isolation none": {"isolation": "none"},
        "isolation bubblewrap": {"isolation": "bubblewrap"},
        "network none": {"isolation": "bubblewrap", "network": "none"},
    }
    plane: dict[str, list[float]] = {name: [] for name in kinds}
    async with drone(folder, RuntimeKind.PROCESS) as it:
        for _ in range(ROUNDS):
            hand.append(await process_by_hand())
            for name, times in plane.items():
                start = time.perf_counter()
                _, ready = await it.spawn({"command": SERVER_COMMAND, **kinds[name]})
                assert await ready is BackendStatus.READY
                times.append((time.perf_counter() - start) * 1000)
    medians = ", ".join(f"{name} {statistics.median(times):.1f} ms" for name, times in plane.items())
    print(f"processes: by hand {statistics.median(hand):.1f} ms, {medians} (medians of {ROUNDS})")


async def process_by_hand() -> float:
    """Milliseconds until a process that was started by hand responds to HTTP."""
    port = free_port()
    start = time.perf_counter()
    process = subprocess.Popen(SERVER_COMMAND, env={**os.environ, "PORT": str(port)})
    await wait_until_ready("127.0.0.1", port, 30.0)
    took_ms = (time.perf_counter() - start) * 1000
    process.kill()
    process.wait()
    return took_ms


async def bench_readiness(folder: Path) -> None:
    for after_s in (0.02, 0.1, 0.2, 1.0):
        late = []
        for _ in range(10):
            opened: asyncio.Future[float] = asyncio.get_running_loop().create_future()
            port = free_port()
            opening = asyncio.create_task(open_after(port, after_s, opened))
            await wait_until_ready("127.0.0.1", port, 30.0)
            late.append((time.perf_counter() - opened.result()) * 1000)
            server = await opening
            server.close()
        print(
            f"readiness: a port that opens after {after_s * 1000:.0f} ms is seen {statistics.median(late):.1f} ms later"
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def open_after(port: int, after_s: float, opened: asyncio.Future[float]) -> asyncio.Server:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    await asyncio.sleep(after_s)
    server = await asyncio.start_server(respond, "127.0.0.1", port)
    opened.set_result(time.perf_counter())
    return server


async def bench_store(folder: Path) -> None:
    ratios = []
    async with open_state_store(folder / "store.sqlite") as store:
        bare = bare_store(folder / "bare.sqlite")
        for _ in range(10):
            start = time.perf_counter()
            await asyncio.gather(*(register_some(store, f"b{number}") for number in range(AT_ONCE)))
            ours_s = time.perf_counter() - start
            start = time.perf_counter()
            for number in range(EVENTS):
                bare(f"b{number % AT_ONCE}", number)
            bare_s = time.perf_counter() - start
            ratios.append(bare_s / ours_s)
    print(f"store: {EVENTS / ours_s:.0f} events/s, {statistics.median(ratios):.2f} of bare SQLite (gate: 0.7)")


async def register_some(store: StateStore, backend: str) -> None:
    """One backend's share of the events; each waits until the one before it is durable."""
    for number in range(EVENTS // AT_ONCE):
        await store.register_event(backend, Loading(), DroneTime(number))


def bare_store(path: Path) -> Callable[[str, int], None]:
    """The two statements of an event, by SQLite alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE backend (id TEXT PRIMARY KEY, state json NOT NULL)",
        "CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, backend_id TEXT, event json, timestamp INTEGER)",
    ):
        connection.execute(statement)
    state = codec.encode(Loading()).decode()

    def register(backend: str, at: int) -> None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO backend VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                (backend, state),
            )
            connection.execute(
                "INSERT INTO event (backend_id, event, timestamp) VALUES (?, ?, ?)", (backend, state, at)
            )

    return register


async def bench_start(folder: Path) -> None:
    path = folder / "full.sqlite"
    ended = Terminated(last_status=BackendStatus.READY, exit_code=0)
    async with open_state_store(path) as store:
        await store.register_event("first", ended, DroneTime(0))
    with sqlite3.connect(path) as connection:
        rows = [(f"b{number}", codec.encode(ended).decode()) for number in range(STORED)]
        connection.executemany("INSERT INTO backend VALUES (?, ?)", rows)
    connection.close()
    times = {}
    for name in ("empty.sqlite", "full.sqlite"):
        start = time.perf_counter()
        async with open_state_store(folder / name) as store:
            watchdog = WatchdogSupervisor(ends_with_drone=True, output_limit_bytes=DEFAULT_LIMIT_BYTES)
            recorder, clock = EventRecorder(store, DroneClock()), DroneClock()
            backends = BackendManager(store, recorder, clock, "127.0.0.1", watchdog, MemoryRuntime())
            await backends.adopt_backends()
            await store.delete_ended(DroneTime(0), 3600)
            times[name] = (time.perf_counter() - start) * 1000
    print(
        f"start: {times['full.sqlite']:.0f} ms with {STORED} stored backends, {times['empty.sqlite']:.0f} ms with none "
        "(gate: 1000 ms more)"
    )


async def bench_idle(folder: Path) -> None:
    executable = {"command": SERVER_COMMAND}
    async with drone(folder, RuntimeKind.PROCESS) as it:
        # The first makes what all share.
        _, ready = await it.spawn(executable)
        await ready
        before_kb = resident_kb()
        for _ in range(IDLE_BACKENDS // 20):
            batch = [await it.spawn(executable) for _ in range(20)]
            for _, ready in batch:
                assert await ready is BackendStatus.READY
        memory_kb = (resident_kb() - before_kb) / IDLE_BACKENDS
        await asyncio.sleep(5)
        used = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        await asyncio.sleep(IDLE_S)
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        share = cpu_s / (time.perf_counter() - start)
    print(
        f"idle: {IDLE_BACKENDS} processes cost {share * 100:.1f} % of a core (gate: 3) and {memory_kb:.0f} KB of the "
        "drone's memory each"
    )


async def bench_watchdog(folder: Path) -> None:
    """What the renewals of twenty drones with a hundred backends each cost one watchdog."""
    supervisor = WatchdogSupervisor(ends_with_drone=True, output_limit_bytes=DEFAULT_LIMIT_BYTES)
    running = asyncio.create_task(supervisor.run())
    far_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3600 * 10**9
    backends = [f"bench{number:09}" for number in range(20 * 100)]
    for backend in backends:
        supervisor.enforce(backend, far_ns, far_ns)
        supervisor.locate(backend, ProcessTarget(("/sys/fs/cgroup/plane-bench",), 1, 1, output=str(folder)))
    await supervisor.wait_confirmed(timing.WATCHDOG_START_TIMEOUT_S)
    [pid] = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    start, before_s = time.perf_counter(), cpu_seconds(pid)
    for backend in itertools.islice(
        itertools.cycle(backends), round(IDLE_S * len(backends) / timing.KEY_RENEW_AFTER_S)
    ):
        supervisor.enforce(backend, far_ns, far_ns)
        await asyncio.sleep(timing.KEY_RENEW_AFTER_S / len(backends))
    share = (cpu_seconds(pid) - before_s) / (time.perf_counter() - start)
    print(
        f"watchdog: {len(backends)} renewals every {timing.KEY_RENEW_AFTER_S:.0f} s cost {share * 100:.2f} % of a core "
        f"(gate: 0.5); {resident_kb(pid)} KB resident"
    )
    for backend in backends:
        supervisor.release(backend)
    await supervisor.wait_confirmed()
    await end_tasks([running])


def cpu_seconds(pid: str) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: str = "self") -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


PARTS = {
    "docker": bench_docker,
    "processes": bench_processes,
    "readiness": bench_readiness,
    "store": bench_store,
    "start": bench_start,
    "idle": bench_idle,
    "watchdog": bench_watchdog,
}


async def main() -> None:
    set_up_logs("error")
    for name in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory(prefix="plane-bench-") as folder:
            await PARTS[name](Path(folder))


if __name__ == "__main__":
    uvloop.run(main())
