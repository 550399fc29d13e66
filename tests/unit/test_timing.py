"""The order of the durations, on which safety rests."""

from __future__ import annotations

from plane import timing


def test_a_lease_is_over_on_the_drone_before_it_is_in_the_database() -> None:
    assert (
        timing.HEARTBEAT_INTERVAL_S
        < timing.KEY_RENEW_AFTER_S
        < timing.KEY_SOFT_TERMINATE_AFTER_S
        < timing.KEY_HARD_TERMINATE_AFTER_S
        < timing.KEY_LEASE_S
        < timing.DRONE_LOST_AFTER_S
    )


def test_what_is_stuck_is_found_before_its_drone_would_be_given_up() -> None:
    assert timing.KEY_HARD_TERMINATE_AFTER_S < timing.SCHEDULED_TIMEOUT_S < timing.DRONE_LOST_AFTER_S
    assert timing.PENDING_ACTIONS_INTERVAL_S < timing.REAP_INTERVAL_S < timing.SCHEDULED_TIMEOUT_S


def test_every_backend_without_a_key_is_terminated_within_three_minutes() -> None:
    ordered_s = timing.KEY_LEASE_S + timing.KEY_GONE_AFTER_S + timing.REAP_INTERVAL_S
    assert ordered_s + timing.UNTERMINATED_LOST_AFTER_S + timing.TERMINATE_AGAIN_AFTER_S + timing.REAP_INTERVAL_S < 180


def test_several_heartbeats_may_be_missed() -> None:
    assert timing.HEARTBEAT_INTERVAL_S * 3 < timing.UNHEALTHY_AFTER_S < timing.DRONE_LOST_AFTER_S


def test_use_is_told_before_idleness_is_believed() -> None:
    assert timing.IDLE_POLL_INTERVAL_S < timing.HEARTBEAT_INTERVAL_S < timing.MIN_IDLE_S


def test_probes_and_backoff_rise() -> None:
    assert timing.READINESS_FIRST_DELAY_S < timing.READINESS_MAX_DELAY_S < timing.READINESS_FIRST_ATTEMPT_TIMEOUT_S
    assert timing.READINESS_FIRST_ATTEMPT_TIMEOUT_S < timing.READINESS_MAX_ATTEMPT_TIMEOUT_S < timing.STARTUP_TIMEOUT_S
    assert timing.BACKOFF_FIRST_S < timing.BACKOFF_CAP_S
    assert timing.BACKOFF_FACTOR > 1
    assert timing.RECONNECT_JITTER_S < timing.RECONNECT_EVERY_S


def test_a_challenge_takes_no_longer_than_the_lease() -> None:
    assert timing.TXT_VISIBLE_TIMEOUT_S + timing.ACME_STEP_TIMEOUT_S < timing.CERTIFICATE_LEASE_S


def test_a_challenge_s_value_is_waited_for_longer_than_an_older_one_is_remembered() -> None:
    assert timing.TXT_CACHE_TTL_S < timing.TXT_FIXED_WAIT_S < timing.TXT_VISIBLE_TIMEOUT_S


def test_failed_orders_stay_below_five_an_hour() -> None:
    wait_s, end_s, orders = timing.CERTIFICATE_FAILURE_FIRST_S, 0.0, 1
    while end_s + wait_s < 3600:
        end_s += wait_s
        wait_s = min(wait_s * timing.CERTIFICATE_FAILURE_FACTOR, timing.CERTIFICATE_FAILURE_CAP_S)
        orders += 1
    assert orders <= 5


def test_a_port_rests_for_longer_than_a_proxy_follows_a_route_to_it() -> None:
    # From the end of its connection, which it notices by a ping without answer, for a lease.
    followed_s = 1.5 * timing.NODE_PING_INTERVAL_S + timing.KEY_LEASE_S
    assert followed_s <= timing.PORT_MIN_QUARANTINE_S < timing.PORT_QUARANTINE_S
