"""A second drone under one name is refused while the first is connected; the first one's restart is not."""

from __future__ import annotations

import pytest

from plane.decisions.drones.registration import RegisteredDrone, may_register, orders_are_void, refusal_message
from plane.protocol.handshake import DroneIdentity
from plane.timing import UNHEALTHY_AFTER_S

HERE = DroneIdentity(instance="i", clock="c", boot_id="boot", machine_id="machine")


def known(
    identity: DroneIdentity | None = HERE, silent_s: float | None = 1.0, disconnected: bool = False
) -> RegisteredDrone:
    return RegisteredDrone(identity, silent_s, disconnected)


def drone(instance: str = "i", clock: str = "c", boot: str = "boot", machine: str = "machine") -> DroneIdentity:
    return DroneIdentity(instance=instance, clock=clock, boot_id=boot, machine_id=machine)


@pytest.mark.parametrize(
    ("new", "disconnected", "wanted"),
    [
        (drone(), False, True),
        (drone(clock="new"), False, True),
        # The same machine, another store: a restart once the former connection has ended.
        (drone("new"), False, False),
        (drone("new"), True, True),
        # The same store after a reboot, or a copy of the disk.
        (drone(boot="new"), False, False),
        (drone(boot="new"), True, True),
        # Another machine, or a clone that made a store of its own.
        (drone("new", boot="new"), True, False),
        (drone("new", machine="new"), True, False),
    ],
)
def test_a_drone_may_or_may_not_register_under_a_known_name(
    new: DroneIdentity, disconnected: bool, wanted: bool
) -> None:
    assert may_register(new, known(disconnected=disconnected)) is wanted
    # Once the former one is not counted on any more, anybody may.
    assert may_register(new, known(silent_s=UNHEALTHY_AFTER_S, disconnected=disconnected))
    assert may_register(new, known(silent_s=None, disconnected=disconnected))


def test_another_instance_of_an_unknown_boot_is_another_drone() -> None:
    nowhere = drone(boot="", machine="")
    assert not may_register(drone("new", boot="", machine=""), known(nowhere, disconnected=True))
    assert may_register(nowhere, known(nowhere))


def test_an_original_drone_may_always_register() -> None:
    assert may_register(None, known())
    assert may_register(HERE, known(None))
    assert may_register(HERE, None)
    assert not orders_are_void(None, known())
    assert not orders_are_void(HERE, known(None))
    assert not orders_are_void(HERE, None)


def test_another_clock_or_store_voids_pending_orders() -> None:
    assert not orders_are_void(drone(boot="new"), known())
    assert orders_are_void(drone(clock="new"), known())
    assert orders_are_void(drone("new"), known())


def test_the_refusal_message_fits_into_a_close_frame() -> None:
    assert "dr-a" in refusal_message("dr-a")
    assert len(refusal_message("dr-" + "a" * 40).encode()) <= 120
