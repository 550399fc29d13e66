"""How long an exchange may wait in each state."""

from __future__ import annotations

import pytest

from plane.decisions.http.exchange_states import State
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts

TIMEOUTS = ExchangeTimeouts(
    head_s=1.0, idle_s=2.0, body_s=3.0, half_closed_s=4.0, closing_s=5.0, linger_s=6.0, first_request_s=7.0
)
PENDING = [State.ROUTING, State.CONNECTING, State.SENDING, State.AWAITING, State.EARLY, State.STREAMING]


def timeout_s(state: State, *facts: str) -> float | None:
    names = ("lingers", "client_paused", "client_ended", "sends_body", "response_head_begun")
    return TIMEOUTS.timeout_s(state, **{name: name in facts for name in names})


@pytest.mark.parametrize("state", PENDING)
def test_waiting_for_the_other_side_is_not_limited(state: State) -> None:
    assert timeout_s(state) is None


@pytest.mark.parametrize("state", PENDING)
@pytest.mark.parametrize("fact", ["client_paused", "sends_body", "response_head_begun"])
def test_bytes_that_could_be_transferred_must_be(state: State, fact: str) -> None:
    assert timeout_s(state, fact) == 3.0


@pytest.mark.parametrize("state", PENDING)
def test_a_client_that_has_ended_is_given_less_time_unless_it_takes_bytes(state: State) -> None:
    assert timeout_s(state, "client_ended") == 4.0
    assert timeout_s(state, "client_ended", "client_paused") == 5.0
    assert timeout_s(state, "client_ended", "sends_body") == 5.0


def test_an_idle_client_that_reads_has_a_timeout_of_its_own() -> None:
    assert timeout_s(State.IDLE) == 2.0
    assert timeout_s(State.IDLE, "client_paused") == 3.0


def test_a_closing_connection_ends() -> None:
    assert timeout_s(State.CLOSING) == 5.0
    assert timeout_s(State.CLOSING, "lingers", "client_paused") == 6.0


@pytest.mark.parametrize("state", [State.CLOSED, State.TUNNEL])
def test_a_connection_that_is_gone_has_no_timeout(state: State) -> None:
    assert timeout_s(state, "client_paused", "client_ended", "sends_body") is None
