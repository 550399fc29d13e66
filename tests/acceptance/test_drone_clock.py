"""Deadlines are of one clock: a drone whose machine was booted, or whose clock is wrong, takes none of another's."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters import processes_of, until
from harness.faults import rebooted, wrong_clock
from harness.one_drone import OneDrone, one_drone
from plane import timing

LEASE_S = (timing.KEY_RENEW_AFTER_S, timing.KEY_SOFT_TERMINATE_AFTER_S, timing.KEY_HARD_TERMINATE_AFTER_S)
SLEEP = {"command": ["/bin/sleep", "600"]}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OneDrone]:
    with one_drone(tmp_path, "--runtime", "process", lease_s=LEASE_S) as running:
        yield running


def refused(machine: OneDrone, lease_began_ms: int) -> str:
    """Deliver an order whose lease began then; returns why it was refused."""
    backend = machine.controller.order(SLEEP, shift_s=(lease_began_ms - machine.controller.local_time) / 1000)
    until(lambda: machine.controller.state(backend).get("status") == "terminated")
    assert not processes_of(backend)
    return str(machine.controller.state(backend)["message"])


@pytest.mark.parametrize("offset", ["-1h", "-20s", "+1h"])
def test_an_order_from_before_a_reboot_is_refused(machine: OneDrone, tmp_path: Path, offset: str) -> None:
    drone = machine.start()
    before = machine.controller.local_time
    drone.stop(signal.SIGKILL)
    machine.start(prefix=rebooted(tmp_path), environment=wrong_clock(offset))
    # Its clock never goes below what its store knows, so what began on the former clock began before this one.
    assert machine.controller.local_time > before
    assert "began before this drone's clock did" in refused(machine, before)
    machine.spawn("")


def test_an_order_from_before_the_store_was_restored_from_a_copy_is_refused(machine: OneDrone) -> None:
    drone = machine.start()
    before = machine.controller.local_time
    drone.stop()
    assert machine.db is not None
    copy = machine.db.with_name("copy")
    shutil.copy(machine.db, copy)
    copy.rename(machine.db)
    machine.start()
    # What the order asks for may have run and ended since the copy was made, and its key may be another drone's.
    assert machine.controller.local_time > before
    assert "began before this drone's clock did" in refused(machine, before)
    machine.spawn("")


def test_a_drone_without_a_store_refuses_leases_of_another_clock(machine: OneDrone, tmp_path: Path) -> None:
    machine.db = None
    drone = machine.start()
    before = machine.controller.local_time
    drone.stop(signal.SIGKILL)
    machine.start(prefix=rebooted(tmp_path), environment=wrong_clock("-1h"))
    assert machine.controller.local_time < before
    assert "begins in the future" in refused(machine, before)


def test_a_restart_without_a_reboot_continues_the_clock(machine: OneDrone) -> None:
    drone = machine.start()
    kept = machine.spawn()
    drone.stop(signal.SIGKILL)
    drone = machine.start(environment=wrong_clock("-1h"))
    drone.says("action=resume")
    assert processes_of(kept)
    machine.spawn("")
