"""The minutes of the overview's chart."""

from __future__ import annotations

from plane.decisions.console.activity import MINUTES, Activity
from plane.protocol.backend_state import (
    BackendState,
    BackendStatus,
    Ready,
    Scheduled,
    Terminated,
    TerminationKind,
    TerminationReason,
)

NOW = 1_800_000_030.0
MINUTE = int(NOW // 60) * 60
SCHEDULED: BackendState = Scheduled()
ENDED = Terminated(last_status=BackendStatus.READY, reason=TerminationReason.SWEPT, termination=TerminationKind.SOFT)
FAILED = Terminated(last_status=BackendStatus.READY, exit_code=3)


def counts(activity: Activity, now: float = NOW) -> dict[int, tuple[int, int, int]]:
    return {
        at: (minute.starts, minute.ends, minute.failures)
        for at, minute in activity.last_hour(now)
        if (minute.starts, minute.ends, minute.failures) != (0, 0, 0)
    }


def test_states_count_in_the_minute_in_which_they_were_stored() -> None:
    activity = Activity(NOW)
    for state, at in (
        (SCHEDULED, NOW),
        (SCHEDULED, NOW - 120),
        (ENDED, NOW),
        (FAILED, NOW),
        (Ready(address="a:1"), NOW),
    ):
        activity.count(state, at, NOW)
    assert counts(activity) == {MINUTE: (1, 2, 1), MINUTE - 120: (1, 0, 0)}


def test_the_hour_is_complete_and_ends_now() -> None:
    hour = Activity(NOW).last_hour(NOW)
    assert len(hour) == MINUTES
    assert (hour[0][0], hour[-1][0]) == (MINUTE - 59 * 60, MINUTE)


def test_states_older_than_the_hour_or_of_the_future_do_not_grow_it() -> None:
    activity = Activity(NOW)
    activity.count(SCHEDULED, NOW - 3600, NOW)
    activity.count(SCHEDULED, NOW + 3600, NOW)
    assert counts(activity) == {MINUTE: (1, 0, 0)}


def test_old_minutes_are_forgotten() -> None:
    activity = Activity(NOW)
    for minute in range(10 * MINUTES):
        activity.count(SCHEDULED, NOW + 60 * minute, NOW + 60 * minute)
        assert len(activity._minutes) <= MINUTES
