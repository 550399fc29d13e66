"""The watchdog ends backends whose leases expired, whatever became of their drone; a drone never runs without one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.clusters import processes_of, until
from harness.docker_parts import OwnDocker, own_docker
from harness.one_drone import OneDrone, one_drone
from harness.program import Program
from plane import timing
from plane.decisions.backends.deadline_enforcement import HARD_MARGIN_NS

# Leases in this file: the gaps are for a slow machine.
SHORT_S = (1.0, 4.0, 5.5)
USUAL_S = (timing.KEY_RENEW_AFTER_S, timing.KEY_SOFT_TERMINATE_AFTER_S, timing.KEY_HARD_TERMINATE_AFTER_S)
LIMIT_S = timing.KEY_LEASE_S
# Nobody else gets the key earlier.
LEAD_S = timing.KEY_LEASE_S - timing.KEY_HARD_TERMINATE_AFTER_S
MARGIN_S = HARD_MARGIN_NS / 1e9
# Forks twice, so that init is its parent, and leaves its session: only its environment tells where it comes from.
DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); time.sleep(600)"
SHELL_WITH_CHILD = f"python3 -S -c '{DAEMON}'; sleep 600 & exec python3 -c \"import os; exec(os.environ['CODE'])\""


@pytest.fixture(params=["none", "bubblewrap"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OneDrone]:
    with one_drone(tmp_path, "--runtime", "process", lease_s=SHORT_S) as running:
        yield running


def killed(drone: Program) -> Callable[[], None]:
    drone.stop(signal.SIGKILL)
    return lambda: None


def stopped(drone: Program) -> Callable[[], None]:
    drone.process.send_signal(signal.SIGSTOP)
    return lambda: drone.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", [killed, stopped])
def test_a_drone_that_does_not_act_for_longer_than_a_lease(
    machine: OneDrone, isolation: str, fault: Callable[[Program], Callable[[], None]]
) -> None:
    drone = machine.start()
    stubborn, graceful = (machine.spawn(mode, isolation=isolation) for mode in ("stubborn", "graceful"))
    assert len(machine.watchdogs(drone)) == 1
    recover = fault(drone)
    try:
        until(lambda: not processes_of(graceful), LIMIT_S)
        assert processes_of(stubborn)
        until(lambda: not processes_of(stubborn), LIMIT_S)
        # Not while its key was held, and before anybody else could hold it.
        assert 0 <= machine.seconds_past_hard_deadline(stubborn) < LEAD_S
        drone.says("lease expired and the drone did not act; killing backend", times=1)
    finally:
        recover()
    if drone.process.poll() is not None:
        until(lambda: not machine.watchdogs(drone))
        machine.start()
    until(lambda: {machine.controller.state(name)["status"] for name in (graceful, stubborn)} == {"terminated"})
    assert machine.controller.state(graceful)["exit_code"] == 0
    assert machine.controller.state(stubborn)["exit_code"] == 128 + signal.SIGKILL


def test_a_drone_that_comes_back_in_time_keeps_its_backends(machine: OneDrone, isolation: str) -> None:
    drone = machine.start()
    kept = machine.spawn(isolation=isolation)
    processes = processes_of(kept)
    first, watchdogs = machine.controller.hard_deadlines[kept], machine.watchdogs(drone)
    # The watchdog is stopped too. If it went on later, it would kill by deadlines that were renewed meanwhile.
    os.kill(watchdogs[0], signal.SIGSTOP)
    drone.stop(signal.SIGKILL)
    drone = machine.start()
    until(lambda: len(machine.watchdogs(drone)) == 1 and machine.watchdogs(drone) != watchdogs)
    until(lambda: machine.controller.hard_deadlines[kept] > first + 1000 * (SHORT_S[2] + MARGIN_S + 1), LIMIT_S)
    assert processes_of(kept) == processes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watchdog_that_dies_or_is_silent_is_replaced(machine: OneDrone, number: signal.Signals) -> None:
    drone = machine.start()
    first = machine.spawn()
    [before] = machine.watchdogs(drone)
    os.kill(before, number)
    drone.says("watchdog ended" if number is signal.SIGKILL else "watchdog does not respond")
    until(lambda: before not in machine.watchdogs(drone) and len(machine.watchdogs(drone)) == 1)
    # Work is taken again, and what was there before is enforced by the new one.
    second = machine.spawn()
    drone.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: not processes_of(first) and not processes_of(second), LIMIT_S)
        assert machine.seconds_past_hard_deadline(first) < LEAD_S
    finally:
        drone.process.send_signal(signal.SIGCONT)


def test_a_watchdog_is_not_ended_by_signals_that_end_programs(machine: OneDrone) -> None:
    drone = machine.start()
    machine.spawn()
    [watchdog] = machine.watchdogs(drone)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(watchdog, number)
    machine.spawn()
    assert machine.watchdogs(drone) == [watchdog]


def test_a_drone_that_is_stopped_leaves_its_watchdog_only_for_backends(machine: OneDrone) -> None:
    drone = machine.start()
    assert drone.stop() == 0
    until(lambda: not machine.watchdogs(drone))
    drone = machine.start()
    left = machine.spawn()
    assert drone.stop() == 0
    assert len(machine.watchdogs(drone)) == 1
    drone = machine.start("--terminate-on-exit")
    assert not processes_of(left)
    assert drone.stop() == 0
    until(lambda: not machine.watchdogs(drone))


@pytest.mark.parametrize("with_store", [True, False], ids=["terminate-on-exit", "no store"])
def test_backends_end_with_a_drone_that_nothing_of_would_outlive(
    tmp_path: Path, isolation: str, with_store: bool
) -> None:
    with one_drone(tmp_path, "--runtime", "process", lease_s=USUAL_S) as machine:
        if not with_store:
            machine.db = None
        drone = machine.start(*(["--terminate-on-exit"] if with_store else []))
        backends = [machine.spawn(isolation=isolation)]
        backends.append(machine.spawn(command=["/bin/sh", "-c", SHELL_WITH_CHILD], isolation=isolation))
        if os.geteuid() == 0:
            # The tests' interpreter may be where that user cannot reach it.
            server = ["/bin/sh", "-c", "exec /bin/busybox httpd -f -p $PORT -h /"]
            backends.append(machine.spawn_executable({"command": server, "isolation": isolation, "user": "nobody"}))
        assert all(processes_of(backend) for backend in backends)
        drone.stop(signal.SIGKILL)
        until(lambda: not any(processes_of(backend) for backend in backends), MARGIN_S)
        until(lambda: not machine.watchdogs(drone))


def test_what_carries_the_drones_name_and_is_not_in_its_store_is_ended(machine: OneDrone, isolation: str) -> None:
    drone = machine.start()
    orphan = machine.spawn(isolation=isolation)
    drone.stop(signal.SIGKILL)
    assert machine.db is not None
    for path in machine.db.parent.glob(f"{machine.db.name}*"):
        if path.is_file():
            path.unlink()
    drone = machine.start()
    # A drone is known to be accepted under its name once its controller sends it anything.
    assert processes_of(orphan)
    machine.spawn(isolation=isolation)
    drone.says("orphaned backends terminated")
    assert not processes_of(orphan)
    # The controller orders its end, and learns of it.
    machine.controller.terminate(orphan)
    until(lambda: machine.controller.state(orphan)["status"] == "terminated")


@pytest.fixture
def engine() -> Iterator[OwnDocker]:
    with own_docker() as own:
        own.tiny_image("tiny:v1")
        yield own


def container(machine: OneDrone) -> str:
    return machine.spawn_executable({"image": "tiny:v1", "pull_policy": "Never"})


def runs(engine: OwnDocker, backend: str) -> bool:
    return f"plane-{backend}" in engine.run("ps", "--format", "{{.Names}}").stdout.split()


@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize("fault", [killed, stopped])
def test_containers_of_a_drone_that_does_not_act(
    tmp_path: Path, engine: OwnDocker, fault: Callable[[Program], Callable[[], None]]
) -> None:
    options = ("--runtime", "docker", "--docker-socket", str(engine.socket))
    with one_drone(tmp_path, *options, lease_s=SHORT_S, engine=engine.socket) as machine:
        drone = machine.start()
        backend = container(machine)
        pid = engine.inspect(f"plane-{backend}")["State"]["Pid"]
        recover = fault(drone)
        try:
            until(lambda: not _lives(pid), LIMIT_S)
            assert 0 <= machine.seconds_past_hard_deadline(backend) < LEAD_S
        finally:
            recover()
        if drone.process.poll() is not None:
            machine.start()
        until(lambda: machine.controller.state(backend)["status"] == "terminated")


@pytest.mark.xdist_group("docker")
def test_containers_end_at_their_deadline_although_the_engine_is_stopped(tmp_path: Path, engine: OwnDocker) -> None:
    options = ("--runtime", "docker", "--docker-socket", str(engine.socket))
    with one_drone(tmp_path, *options, lease_s=SHORT_S, engine=engine.socket) as machine:
        drone = machine.start()
        backend = container(machine)
        pid = engine.inspect(f"plane-{backend}")["State"]["Pid"]
        engine.freeze()
        drone.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: not _lives(pid), LIMIT_S)
            assert machine.seconds_past_hard_deadline(backend) < LEAD_S
        finally:
            engine.thaw()
            drone.process.send_signal(signal.SIGCONT)
        until(lambda: machine.controller.state(backend)["status"] == "terminated")


@pytest.mark.xdist_group("docker")
def test_containers_end_with_a_drone_without_a_store(tmp_path: Path, engine: OwnDocker) -> None:
    options = ("--runtime", "docker", "--docker-socket", str(engine.socket))
    with one_drone(tmp_path, *options, lease_s=USUAL_S, engine=engine.socket) as machine:
        machine.db = None
        drone = machine.start()
        backend = container(machine)
        drone.stop(signal.SIGKILL)
        until(lambda: not runs(engine, backend), MARGIN_S)
        # What is left of it is removed by the next drone of this name.
        drone = machine.start()
        machine.controller.terminate(container(machine))
        drone.says("orphaned backends terminated")
        until(lambda: engine.run("ps", "-aq").stdout.split() == [])


def _lives(pid: int) -> bool:
    """Whether the process runs: its parent may not have waited for it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def test_a_stopped_drone_starts_nothing_after_the_deadline(machine: OneDrone) -> None:
    drone = machine.start()
    machine.spawn()
    started = time.monotonic()
    drone.process.send_signal(signal.SIGSTOP)
    backend = machine.controller.order({"command": ["/bin/sleep", "600"]})
    time.sleep(max(0.0, started + SHORT_S[2] + MARGIN_S - time.monotonic()))
    drone.process.send_signal(signal.SIGCONT)
    until(lambda: machine.controller.state(backend).get("status") == "terminated")
    assert not processes_of(backend)
    assert "nearly expired" in machine.controller.state(backend)["message"]


@pytest.mark.parametrize("fault", [killed, stopped])
def test_output_is_bounded_although_the_drone_does_not_read_it(
    tmp_path: Path, fault: Callable[[Program], Callable[[], None]]
) -> None:
    limit_bytes = 2_000_000
    with one_drone(tmp_path, "--runtime", "process", lease_s=USUAL_S) as machine:
        drone = machine.start("--log-limit-bytes", str(limit_bytes))
        flood = "while :; do head -c 100000 /dev/zero | tr '\\0' 'x'; sleep 0.01; done"
        server = f"{flood} & exec /bin/busybox httpd -f -p $PORT -h /"
        backend = machine.spawn_executable({"command": ["/bin/sh", "-c", server]})
        assert machine.db is not None
        spool = machine.db.with_name(f"{machine.db.name}-backends") / backend / "spool"
        recover = fault(drone)
        try:
            # It goes on writing, and the file does not grow with it.
            before = spool.stat().st_size
            written = 10 * limit_bytes
            until(lambda: spool.stat().st_size - before > written and _takes(spool) <= limit_bytes + 65536)
        finally:
            recover()


def _takes(path: Path) -> int:
    return path.stat().st_blocks * 512
