"""When the watchdog stops a backend, kills it, and considers it ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.backends.deadline_enforcement import HARD_MARGIN_NS, QUIET_NS, DeadlineTable, DroneStatus, Step

SOFT, HARD = 40_000_000_000, 50_000_000_000
LATE = HARD + HARD_MARGIN_NS


def table(*, ends_with_drone: bool = False) -> DeadlineTable:
    deadlines = DeadlineTable(ends_with_drone)
    deadlines.set_deadlines("b", SOFT, HARD)
    return deadlines


@pytest.mark.parametrize("drone", DroneStatus)
def test_a_backend_is_killed_after_its_hard_deadline_whatever_its_drone_does(drone: DroneStatus) -> None:
    assert ("b", Step.KILL) not in table().due(LATE - 1, drone)
    deadlines = table()
    assert deadlines.due(LATE, drone) == [("b", Step.KILL)]
    assert deadlines.due(LATE + 1, drone) == [("b", Step.KILL)]


def test_a_backend_is_stopped_once_and_only_if_its_drone_does_not_act() -> None:
    deadlines = table()
    assert deadlines.due(SOFT, DroneStatus.ALIVE) == []
    for drone in (DroneStatus.SILENT, DroneStatus.GONE):
        deadlines = table()
        assert deadlines.due(SOFT - 1, drone) == []
        assert deadlines.due(SOFT, drone) == [("b", Step.REQUEST_STOP)]
        assert deadlines.due(SOFT + 1, drone) == []


def test_a_drone_without_a_store_takes_its_backends_with_it() -> None:
    deadlines = table(ends_with_drone=True)
    assert deadlines.due(0, DroneStatus.SILENT) == []
    assert deadlines.due(1, DroneStatus.GONE) == [("b", Step.KILL)]


def test_a_renewal_extends_the_deadline_but_does_not_revoke_a_kill() -> None:
    deadlines = table()
    deadlines.set_deadlines("b", SOFT + LATE, HARD + LATE)
    assert deadlines.due(LATE, DroneStatus.GONE) == []
    assert deadlines.due(LATE + LATE, DroneStatus.GONE) == [("b", Step.KILL)]
    deadlines.set_deadlines("b", 10 * LATE, 10 * LATE)
    assert deadlines.due(LATE + LATE, DroneStatus.GONE) == [("b", Step.KILL)]
    deadlines.release("b")
    assert deadlines.due(LATE + LATE, DroneStatus.GONE) == []


def test_a_killed_backend_has_ended_when_nothing_was_alive_for_a_while() -> None:
    deadlines = table()
    deadlines.due(LATE, DroneStatus.GONE)
    deadlines.record_kill("b", LATE + 5, alive=True)
    deadlines.record_kill("b", LATE + QUIET_NS, alive=False)
    assert not deadlines.all_ended
    deadlines.record_kill("b", LATE + QUIET_NS + 5, alive=False)
    assert deadlines.all_ended
    assert deadlines.due(LATE + QUIET_NS + 6, DroneStatus.GONE) == []


@given(
    st.lists(st.integers(1, 5_000_000_000), max_size=60),
    st.lists(st.sampled_from(DroneStatus), min_size=1, max_size=60),
    st.booleans(),
)
def test_every_backend_is_killed_after_its_deadline(
    gaps: list[int], drones: list[DroneStatus], ends_with_drone: bool
) -> None:
    deadlines, now = table(ends_with_drone=ends_with_drone), 0
    for number, gap in enumerate(gaps):
        now += gap
        drone = drones[number % len(drones)]
        steps = deadlines.due(now, drone)
        must_die = now >= LATE or (ends_with_drone and drone is DroneStatus.GONE)
        assert not must_die or ("b", Step.KILL) in steps
