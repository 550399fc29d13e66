"""The watchdog's kills do not wait for its search through the environments of processes."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from harness.clusters import until
from plane.decisions.backends.deadline_enforcement import QUIET_NS
from plane.drone.watchdog.killer import ENGINE_TIMEOUT_NS, Killer
from plane.random_ids import random_name
from plane.runtime.kill_target import ContainerTarget, ProcessTarget
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.procfs import descendants, is_stopped, start_time


def sleeper(backend: str) -> subprocess.Popen[bytes]:
    # A supervisor and its command.
    command = ["/bin/sh", "-c", "sleep 600; exit"]
    return subprocess.Popen(command, env={"SESSION_BACKEND_ID": backend}, start_new_session=True)


def test_a_process_with_an_unreadable_environment_delays_no_other_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, may_return = threading.Event(), threading.Event()

    def hanging(*backend_ids: str, reader: EnvironmentReader, spare: Collection[int] = ()) -> set[str]:
        hangs.set()
        may_return.wait(30)
        return set()

    monkeypatch.setattr("plane.drone.watchdog.killer.kill_marked", hanging)
    backend = random_name()
    with sleeper(backend) as process:
        killer = Killer()
        container = ContainerTarget("/no/engine", "plane-b", process.pid, start_time(process.pid))
        assert killer.kill({backend: ProcessTarget()}, 0) == {backend}
        assert hangs.wait(10)
        killer.kill({backend: container}, 1)
        assert process.wait(10) == -9
        may_return.set()


@pytest.mark.parametrize("target", [None, ProcessTarget(), ContainerTarget("/no/engine", "plane-b")])
def test_a_backend_without_location_is_found_by_its_environment(target: ProcessTarget | ContainerTarget | None) -> None:
    backend = random_name()
    with sleeper(backend) as process:
        killer = Killer()
        killer.kill({backend: target}, 0)
        # The shell is killed, or its command is killed before it and it ends with that.
        assert process.wait(10) in (-9, 128 + 9)


def test_a_backend_without_processes_has_ended() -> None:
    backend, killer = random_name(), Killer()
    assert killer.kill({backend: None}, 0) == {backend}
    until(lambda: killer.kill({backend: None}, QUIET_NS) == set())


def test_a_supervisor_is_spared_at_first() -> None:
    backend = random_name()
    with sleeper(backend) as process:
        target = ProcessTarget(pid=process.pid, started_at=start_time(process.pid))
        killer = Killer()
        killer.kill({backend: target}, 0)
        # The command is killed, and the shell notes that.
        assert process.wait(10) == 128 + 9


def test_children_of_a_wrapper_get_their_time_to_stop(tmp_path: Path) -> None:
    output = tmp_path / "output"
    app = f"trap 'sleep 0.3; echo saved > {output}; exit' TERM; echo ready > {output}; while true; do sleep 0.05; done"
    # A supervisor, a wrapper, and the application.
    command = ["/bin/sh", "-c", '/bin/sh -c "/bin/bash -c \\"\\$APP\\"; true"; exit $?']
    with subprocess.Popen(command, env={"APP": app, "PATH": "/usr/bin:/bin"}, start_new_session=True) as process:
        until(lambda: output.exists() and output.read_text() == "ready\n")
        killer = Killer()
        killer.request_stop("b", ProcessTarget(pid=process.pid, started_at=start_time(process.pid)))
        until(lambda: output.read_text() == "saved\n")
        assert process.poll() is None
        # It is let go once nothing else runs.
        polls = 0
        while process.poll() is None and polls < 500:
            killer.check_stops()
            time.sleep(0.02)
            polls += 1
        assert process.returncode == 128 + 15


def test_a_kill_continues_a_supervisor_that_a_soft_stop_has_stopped() -> None:
    backend = random_name()
    stubborn = ["/bin/sh", "-c", "trap '' TERM; /bin/sh -c 'trap \"\" TERM; while true; do sleep 1; done'; exit"]
    with subprocess.Popen(stubborn, env={"SESSION_BACKEND_ID": backend}, start_new_session=True) as process:
        target = ProcessTarget(pid=process.pid, started_at=start_time(process.pid))
        until(lambda: len(descendants(process.pid)) > 1)
        killer = Killer()
        killer.request_stop(backend, target)
        until(lambda: is_stopped(process.pid))
        killer.kill({backend: target}, 0)
        assert process.wait(10) == 128 + 9


def test_a_container_without_its_engine_has_ended() -> None:
    backend, killer = random_name(), Killer()
    target = ContainerTarget("/no/engine", "plane-b")
    killer.kill({backend: target}, 0)
    until(lambda: killer.kill({backend: target}, 1) == set())


def test_a_hanging_engine_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        path = tmp_path / "engine"
        engine.bind(str(path))
        engine.listen(1)
        backend, killer = random_name(), Killer()
        target = ContainerTarget(str(path), "plane-b")
        killer.kill({backend: target}, 0)
        until(lambda: not killer._search.may_live(backend))
        assert killer.kill({backend: target}, ENGINE_TIMEOUT_NS - 1) == {backend}
        assert killer.kill({backend: target}, ENGINE_TIMEOUT_NS) == set()
        killer.release(backend, target)
