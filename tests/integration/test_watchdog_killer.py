"""What the watchdog kills by other means does not wait for its search through the environments of processes."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from harness.clusters import until
from plane.decisions.deadline_enforcement import QUIET_NS
from plane.drone.watchdog.killer import ENGINE_GIVEN_UP_NS, Killer
from plane.identity import random_name
from plane.runtime.kill_target import ContainerTarget, ProcessTarget
from plane.runtime.processes import start_time


def sleeper(backend: str) -> subprocess.Popen[bytes]:
    # A supervisor and its command.
    command = ["/bin/sh", "-c", "sleep 600; exit"]
    return subprocess.Popen(command, env={"SESSION_BACKEND_ID": backend}, start_new_session=True)


def test_a_process_whose_environment_cannot_be_read_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, may_return = threading.Event(), threading.Event()

    def hanging(*backend_ids: str, spare: Collection[int] = ()) -> set[str]:
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
def test_what_is_not_located_is_found_by_its_environment(target: ProcessTarget | ContainerTarget | None) -> None:
    backend = random_name()
    with sleeper(backend) as process:
        killer = Killer()
        killer.kill({backend: target}, 0)
        assert process.wait(10) == -9


def test_a_backend_of_which_nothing_is_found_has_ended() -> None:
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


def test_a_container_whose_engine_is_gone_has_ended() -> None:
    backend, killer = random_name(), Killer()
    target = ContainerTarget("/no/engine", "plane-b")
    killer.kill({backend: target}, 0)
    until(lambda: killer.kill({backend: target}, 1) == set())


def test_an_engine_that_hangs_is_given_up_in_the_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        path = tmp_path / "engine"
        engine.bind(str(path))
        engine.listen(1)
        backend, killer = random_name(), Killer()
        target = ContainerTarget(str(path), "plane-b")
        killer.kill({backend: target}, 0)
        until(lambda: not killer._search.may_live(backend))
        assert killer.kill({backend: target}, ENGINE_GIVEN_UP_NS - 1) == {backend}
        assert killer.kill({backend: target}, ENGINE_GIVEN_UP_NS) == set()
        killer.forget(backend, target)
