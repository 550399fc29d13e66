"""A drone is the same instance as long as its store, machine and boot are the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from plane.decisions.drones.identity import Machine, identity_facts, is_another_instance

HERE = Machine("machine", "boot", "1:2")
NUMBERS = itertools.count()


def facts(stored: Mapping[str, str], machine: Machine, *, clock_continues: bool = True) -> dict[str, str]:
    return identity_facts(stored, machine, clock_continues=clock_continues, random_id=lambda: f"random-{next(NUMBERS)}")


def test_a_restart_is_the_same_instance_with_the_same_clock() -> None:
    assert not is_another_instance({}, HERE)
    first = facts({}, HERE)
    assert facts(first, HERE) == first
    assert not is_another_instance(first, HERE)


@pytest.mark.parametrize(
    "elsewhere",
    [Machine("other", "boot", "1:2"), Machine("machine", "other", "1:2"), Machine("machine", "boot", "1:3")],
    ids=["another machine", "another boot", "a copy of the store"],
)
def test_another_store_machine_or_boot_is_another_instance(elsewhere: Machine) -> None:
    first = facts({}, HERE)
    assert is_another_instance(first, elsewhere)
    second = facts(first, elsewhere)
    assert second["instance"] != first["instance"]
    assert second["clock"] != first["clock"]


def test_a_new_clock_has_another_id() -> None:
    first = facts({}, HERE)
    second = facts(first, HERE, clock_continues=False)
    assert second["instance"] == first["instance"]
    assert second["clock"] != first["clock"]
