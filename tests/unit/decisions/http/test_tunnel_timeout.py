"""Every tunnel that may never end by itself has a deadline; a quiet tunnel has none."""

from __future__ import annotations

import pytest

from plane.decisions.http.tunnel_timeout import TunnelDeadline, TunnelSide

CLIENT, BACKEND = TunnelSide


@pytest.fixture
def deadline() -> TunnelDeadline:
    return TunnelDeadline(60.0)


def test_a_quiet_tunnel_has_no_deadline(deadline: TunnelDeadline) -> None:
    assert deadline.at is None


@pytest.mark.parametrize("side", TunnelSide)
def test_a_half_closed_tunnel_has_a_deadline_that_bytes_postpone(deadline: TunnelDeadline, side: TunnelSide) -> None:
    assert deadline.side_ended(side, 100.0)
    assert deadline.at == 160.0
    deadline.transferred(150.0)
    assert deadline.at == 210.0
    assert deadline.expired(0, 210.0)
    assert deadline.reason == f"only the {side.name.lower()} has ended the connection"


def test_a_tunnel_that_both_sides_have_ended_is_over(deadline: TunnelDeadline) -> None:
    assert deadline.side_ended(CLIENT, 100.0)
    assert not deadline.side_ended(BACKEND, 101.0)


@pytest.mark.parametrize("side", TunnelSide)
def test_a_side_that_does_not_read_has_a_deadline_until_it_reads(deadline: TunnelDeadline, side: TunnelSide) -> None:
    deadline.side_full(side, 100.0)
    assert deadline.at == 160.0
    assert deadline.reason == f"the {side.name.lower()} does not read"
    deadline.side_drained(side, 159.0)
    assert deadline.at is None


def test_a_slow_side_is_given_more_time_and_one_that_stopped_is_not(deadline: TunnelDeadline) -> None:
    deadline.side_full(BACKEND, 100.0)
    assert not deadline.expired(5_000, 160.0)
    assert deadline.at == 220.0
    assert not deadline.expired(4_000, 220.0)
    assert deadline.expired(4_000, 280.0)


def test_both_sides_must_read_before_the_deadline_is_lifted(deadline: TunnelDeadline) -> None:
    deadline.side_full(CLIENT, 100.0)
    deadline.side_full(BACKEND, 100.0)
    deadline.side_drained(CLIENT, 110.0)
    assert deadline.at == 170.0


def test_a_half_closed_tunnel_keeps_its_deadline_when_a_side_reads_again(deadline: TunnelDeadline) -> None:
    deadline.side_ended(CLIENT, 100.0)
    deadline.side_full(CLIENT, 110.0)
    deadline.side_drained(CLIENT, 120.0)
    assert deadline.at == 180.0


def test_what_is_left_after_one_side_is_gone_must_be_taken(deadline: TunnelDeadline) -> None:
    deadline.side_lost(100.0)
    assert deadline.at == 160.0
    assert not deadline.expired(10, 160.0)
    assert deadline.expired(10, 220.0)
    assert deadline.reason == "one side is gone, and the other does not read"
