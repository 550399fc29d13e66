"""Steps of the database's clock are found, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane import timing
from plane.decisions.database.clock import (
    CONFIRMATION_VALID_S,
    MAX_READING_S,
    PEER_WAIT_S,
    TOLERANCE_S,
    ClockAction,
    ClockReading,
    DatabaseClock,
    LastConfirmation,
)

START_S = 1_700_000_000.0
NEVER = LastConfirmation(START_S, None, None)


def reading(steady_s: float, ahead_s: float = 0.0, took_s: float = 0.01, shifted_s: float = 0.0) -> ClockReading:
    """A reading whose database clock is so far ahead of where it was at steady 0."""
    return ClockReading(steady_s, steady_s + took_s, START_S + steady_s + took_s / 2 + ahead_s, shifted_s)


def watching() -> DatabaseClock:
    """A controller that knows the clock from steady 0 on."""
    clock = DatabaseClock("boot")
    assert clock.read(reading(0), NEVER).action is ClockAction.CONFIRM
    return clock


@pytest.mark.parametrize("step_s", [130.0, 35.0, 2.5, -2.5, -3600.0])
def test_step_is_detected_until_it_is_handled(step_s: float) -> None:
    clock = watching()
    assert clock.read(reading(1), NEVER).action is ClockAction.CONFIRM
    for steady_s in (2, 3):
        verdict = clock.read(reading(steady_s, step_s), NEVER)
        assert verdict.action is ClockAction.SHIFT
        assert verdict.measured
        assert verdict.step_s == pytest.approx(step_s, abs=0.1)
    clock.has_shifted(step_s)
    assert clock.read(reading(4, step_s, shifted_s=step_s), NEVER).action is ClockAction.CONFIRM


def test_second_step_is_detected_after_the_first() -> None:
    clock = watching()
    assert clock.read(reading(1, 130.0), NEVER).action is ClockAction.SHIFT
    clock.has_shifted(130.0)
    verdict = clock.read(reading(2, 230.0, shifted_s=130.0), NEVER)
    assert verdict.action is ClockAction.SHIFT
    assert verdict.step_s == pytest.approx(100.0, abs=0.1)


def test_shift_by_another_controller_is_accepted() -> None:
    clock = watching()
    assert clock.read(reading(1, 130.0, shifted_s=129.0), NEVER).action is ClockAction.WAIT
    assert clock.read(reading(2, 130.0, shifted_s=129.0), NEVER).action is ClockAction.CONFIRM
    # A step after that is found as ever.
    assert clock.read(reading(3, 0.0, shifted_s=129.0), NEVER).step_s == pytest.approx(-130.0, abs=0.1)


def test_controllers_with_different_clocks_shift_once() -> None:
    """One machine was paused for a minute, and its steady clock with it."""
    paused, other = watching(), watching()
    shifted_s, shifts = 0.0, 0
    for second in range(61, 200):
        for clock, behind_s in ((paused, 60.0), (other, 0.0)):
            now = reading(second - behind_s, behind_s, shifted_s=shifted_s)
            verdict = clock.read(now, NEVER)
            if verdict.action is ClockAction.SHIFT:
                shifts += 1
                shifted_s += verdict.step_s
                clock.has_shifted(shifted_s)
    assert shifts == 1


def test_stopped_controller_detects_no_step() -> None:
    clock = watching()
    # Between two readings, and while one was under way.
    assert clock.read(reading(61), NEVER).action is ClockAction.CONFIRM
    assert clock.read(reading(62, took_s=60), NEVER).action is ClockAction.WAIT
    assert clock.read(reading(123), NEVER).action is ClockAction.CONFIRM


def test_step_is_detected_after_a_stop() -> None:
    clock = watching()
    assert clock.read(reading(1, 130.0, took_s=60), NEVER).action is ClockAction.WAIT
    assert clock.read(reading(62, 130.0), NEVER).step_s == pytest.approx(130.0, abs=0.1)


def test_new_controller_of_the_same_boot_uses_the_last_confirmation() -> None:
    last = LastConfirmation(START_S, "boot", 0.0)
    assert DatabaseClock("boot").read(reading(3600), last).action is ClockAction.CONFIRM
    assert DatabaseClock("boot").read(reading(3600, 130.0), last).step_s == pytest.approx(130.0, abs=1.0)


@pytest.mark.parametrize("boot", ["boot", ""])
def test_controller_of_another_boot_uses_a_recent_confirmation(boot: str) -> None:
    last = LastConfirmation(START_S, "another" if boot else "", 999.0)
    clock = DatabaseClock(boot)
    assert clock.read(reading(CONFIRMATION_VALID_S - 0.5), last).action is ClockAction.CONFIRM


def test_unwatched_time_counts_as_one_step() -> None:
    clock = DatabaseClock("boot")
    actions = [clock.read(reading(100 + second), NEVER) for second in range(7)]
    shifts = [verdict for verdict in actions if verdict.action is ClockAction.SHIFT]
    assert [verdict.action for verdict in actions[:4]] == [ClockAction.WAIT] * 4
    assert not shifts[0].measured
    assert shifts[0].step_s == pytest.approx(100 + PEER_WAIT_S, abs=1.1)
    # The shift confirms the clock as of that reading.
    confirmed = LastConfirmation(START_S + 107, None, None)
    assert clock.read(reading(108), confirmed).action is ClockAction.CONFIRM


@given(
    st.lists(st.tuples(st.floats(0.2, 100), st.floats(0, 5)), min_size=1, max_size=50),
    st.floats(-5e-4, 5e-4),
)
def test_steady_clock_never_steps(readings: list[tuple[float, float]], drift: float) -> None:
    clock = watching()
    steady_s = 0.0
    for wait_s, took_s in readings:
        steady_s += wait_s
        now = reading(steady_s, steady_s * drift, took_s)
        assert clock.read(now, NEVER).action is not ClockAction.SHIFT
        steady_s += took_s


@given(st.floats(-1e5, 1e5).filter(lambda step_s: abs(step_s) > TOLERANCE_S + 2.1), st.floats(0, MAX_READING_S))
def test_steps_beyond_the_tolerance_are_detected(step_s: float, took_s: float) -> None:
    assert watching().read(reading(1, step_s, took_s), NEVER).action is not ClockAction.CONFIRM


def test_confirmation_is_valid_for_less_than_the_margin_of_a_lease() -> None:
    between_s = timing.KEY_LEASE_S - timing.KEY_HARD_TERMINATE_AFTER_S
    assert timing.CLOCK_POLL_INTERVAL_S < CONFIRMATION_VALID_S
    assert between_s > CONFIRMATION_VALID_S + TOLERANCE_S
