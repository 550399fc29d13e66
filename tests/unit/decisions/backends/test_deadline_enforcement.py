"""When the watchdog asks a backend to stop, kills it, and stops looking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.backends.deadline_enforcement import HARD_MARGIN_NS, QUIET_NS, DeadlineTable, DroneStatus, Step

SOFT, HARD = 40_000_000_000, 50_000_000_000
LATE = HARD + HARD_MARGIN_NS


def table(*, ends_with_drone: bool = False) -> DeadlineTable:
    made = DeadlineTable(ends_with_drone)
    made.hold("b", SOFT, HARD)
    return made


@pytest.mark.parametrize("drone", DroneStatus)
def test_a_backend_is_killed_after_its_hard_deadline_whatever_its_drone_does(drone: DroneStatus) -> None:
    assert ("b", Step.KILL) not in table().due(LATE - 1, drone)
    held = table()
    assert held.due(LATE, drone) == [("b", Step.KILL)]
    assert held.due(LATE + 1, drone) == [("b", Step.KILL)]


def test_only_without_its_drone_a_backend_is_asked_to_stop_once() -> None:
    held = table()
    assert held.due(SOFT, DroneStatus.ALIVE) == []
    for drone in (DroneStatus.SILENT, DroneStatus.GONE):
        held = table()
        assert held.due(SOFT - 1, drone) == []
        assert held.due(SOFT, drone) == [("b", Step.ASK_TO_STOP)]
        assert held.due(SOFT + 1, drone) == []


def test_without_a_store_everything_is_killed_at_the_end_of_the_drone() -> None:
    held = table(ends_with_drone=True)
    assert held.due(0, DroneStatus.SILENT) == []
    assert held.due(1, DroneStatus.GONE) == [("b", Step.KILL)]


def test_a_renewal_extends_the_deadline_but_does_not_take_back_a_kill() -> None:
    held = table()
    held.hold("b", SOFT + LATE, HARD + LATE)
    assert held.due(LATE, DroneStatus.GONE) == []
    assert held.due(LATE + LATE, DroneStatus.GONE) == [("b", Step.KILL)]
    held.hold("b", 10 * LATE, 10 * LATE)
    assert held.due(LATE + LATE, DroneStatus.GONE) == [("b", Step.KILL)]
    held.release("b")
    assert held.due(LATE + LATE, DroneStatus.GONE) == []


def test_a_killed_backend_has_ended_when_nothing_was_alive_for_a_while() -> None:
    held = table()
    held.due(LATE, DroneStatus.GONE)
    held.killed("b", LATE + 5, alive=True)
    held.killed("b", LATE + QUIET_NS, alive=False)
    assert not held.all_ended
    held.killed("b", LATE + QUIET_NS + 5, alive=False)
    assert held.all_ended
    assert held.due(LATE + QUIET_NS + 6, DroneStatus.GONE) == []


@given(
    st.lists(st.integers(1, 5_000_000_000), max_size=60),
    st.lists(st.sampled_from(DroneStatus), min_size=1, max_size=60),
    st.booleans(),
)
def test_no_backend_is_left_alone_after_its_deadline(
    gaps: list[int], drones: list[DroneStatus], ends_with_drone: bool
) -> None:
    held, now = table(ends_with_drone=ends_with_drone), 0
    for number, gap in enumerate(gaps):
        now += gap
        drone = drones[number % len(drones)]
        steps = held.due(now, drone)
        must_die = now >= LATE or (ends_with_drone and drone is DroneStatus.GONE)
        assert not must_die or ("b", Step.KILL) in steps
