"""How long no key is granted once the database may have lost commits."""

from __future__ import annotations

import pytest

from plane import timing
from plane.decisions.database.failover import DatabaseState, may_lack_commits, no_grants_for

ONE, RESTARTED, PROMOTED = "00000001 1000", "00000001 2000", "00000002 2000"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((ONE, 10), (ONE, 10), False),
        ((ONE, 10), (ONE, 11), False),
        ((ONE, 10), (ONE, 9), True),
        ((ONE, 10), (RESTARTED, 11), True),
        ((ONE, None), (PROMOTED, 11), True),
        ((ONE, None), (ONE, 11), False),
        ((None, None), (None, None), False),
        ((ONE, 10), (None, None), True),
    ],
)
def test_commits_may_be_lacking_after_a_restart_or_an_earlier_state(
    before: tuple[str | None, int | None], now: tuple[str | None, int | None], expected: bool
) -> None:
    assert may_lack_commits(DatabaseState(*before), DatabaseState(*now)) is expected


def test_missing_commits_stop_grants_for_a_lease() -> None:
    assert no_grants_for(1, ONE, RESTARTED) == no_grants_for(1, ONE, PROMOTED) == timing.KEY_LEASE_S


def test_restart_without_known_commits_counts_as_a_restart() -> None:
    assert no_grants_for(None, ONE, PROMOTED) == timing.KEY_LEASE_S
    assert no_grants_for(None, None, ONE) == no_grants_for(None, ONE, None) == timing.KEY_LEASE_S
    assert no_grants_for(None, ONE, RESTARTED) == timing.FAILOVER_OBJECTION_S


def test_other_controllers_have_time_to_object() -> None:
    assert timing.CLOCK_POLL_INTERVAL_S < no_grants_for(0, ONE, PROMOTED) < timing.KEY_LEASE_S
