"""How exchanges end and what their deadlines do, as scripts of events and commands."""

from __future__ import annotations

import pytest

from harness.exchange_play import (
    CHUNKED,
    END,
    GET,
    OK,
    OK_SENT,
    POST,
    Event,
    Play,
    client,
    client_ends,
    client_full,
    client_goes,
    connects,
    deadline,
    found,
    own,
    reads_next,
    responds,
    upstream,
    upstream_ends,
    upstream_full,
)
from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Connect,
    FinishResponse,
    Incident,
    Report,
    SendClient,
    StartResponse,
)
from plane.decisions.http.exchange_states import State


def test_a_client_that_ends_its_direction_gets_the_response_to_a_complete_request() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    it = Play().connected().on(client_ends).is_in(State.AWAITING, 2.0)
    it.on(upstream(OK), FinishResponse(200, sent), Action.CLOSE).is_in(State.CLOSING, 50.0)
    it = Play().on(client(GET + GET), Action.FIND_BACKEND).on(client_ends).is_in(State.ROUTING, 2.0)
    it.on(responds(410), own(410), Action.END, Action.READ_NEXT).on(reads_next, Action.FIND_BACKEND)
    it.on(responds(410), own(410, close=True), Action.CLOSE)


def test_a_client_that_ends_within_a_request_is_refused() -> None:
    Play().on(client(b"GET /t/")).on(client_ends, own(400, close=True), Action.CLOSE).is_in(State.CLOSING, 50.0)
    it = Play().connected(POST).on(client_ends, Action.ABORT_UPSTREAM, own(400, close=True), Action.CLOSE)
    it = Play().on(client(POST), Action.FIND_BACKEND).on(client_ends).on(found, Connect.ONCE)
    it.on(connects, Action.SEND_HEAD, Action.ABORT_UPSTREAM, own(400, close=True), Action.CLOSE)
    it = Play().connected().on(client(b"GET /")).on(client_ends)
    it.on(upstream(OK), StartResponse(200, OK), *END, Action.READ_NEXT).on(
        reads_next, own(400, close=True), Action.CLOSE
    )


def test_a_client_that_ends_within_its_body_after_an_early_response_is_closed() -> None:
    it = (
        Play()
        .connected(POST)
        .on(upstream(CHUNKED), StartResponse(200, CHUNKED[:-4] + b"\r\nConnection: close\r\n\r\n"))
    )
    it.on(client_ends, Action.ABORT_UPSTREAM, Action.CLOSE).is_in(State.CLOSING, 50.0)


def test_an_idle_client_that_ends_is_closed() -> None:
    Play().on(client_ends, Action.CLOSE).is_in(State.CLOSING, 50.0)
    Play().connected().on(upstream(OK), OK_SENT).on(client_ends, Action.CLOSE)


def test_an_end_of_tls_ends_both_directions() -> None:
    Play(can_half_close=False).connected().on(client_ends, Action.ABORT_UPSTREAM, Action.CLOSE)
    Play(can_half_close=False).on(client(b"\x16"), own(400, close=True), Action.CLOSE).is_in(State.CLOSING, 50.0)


def test_a_client_that_goes_takes_its_connection_to_the_backend_along() -> None:
    Play().connected().on(client_goes, Action.ABORT_UPSTREAM).is_in(State.CLOSED)
    it = Play().on(client(GET), Action.FIND_BACKEND).on(found, Connect.REPEATABLE).on(client_goes)
    it.on(connects, Action.ABORT_UPSTREAM).is_in(State.CLOSED)
    it = Play().on(client(GET), Action.FIND_BACKEND).on(client_goes).on(found).on(responds(410)).is_in(State.CLOSED)


def test_both_sides_may_end() -> None:
    sent = StartResponse(200, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    it = Play().connected().on(upstream(b"HTTP/1.1 200 OK\r\n\r\n"), sent).on(client_ends).is_in(State.STREAMING, 2.0)
    it.on(upstream(b"more"), SendClient(b"more")).on(upstream_ends, Action.CLOSE).is_in(State.CLOSING, 50.0)


def stalled(*commands: Action | StartResponse) -> list[Command]:
    return [Report(Incident.STALLED, 0, ""), *commands]


def test_an_idle_connection_closes_silently() -> None:
    Play().on(deadline(), Action.CLOSE).is_in(State.CLOSING, 50.0)


def test_waiting_for_a_response_is_not_limited() -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND).is_in(State.ROUTING).on(found, Connect.REPEATABLE)
    it.is_in(State.CONNECTING).on(connects, Action.SEND_HEAD).is_in(State.AWAITING)
    it.on(upstream(CHUNKED), StartResponse(200, CHUNKED)).is_in(State.STREAMING)


def test_a_client_that_stalls_within_its_body_gets_a_408() -> None:
    it = Play().connected(POST).is_in(State.SENDING, 60.0)
    it.on(deadline(), *stalled(Action.ABORT_UPSTREAM, own(408, close=True), Action.LINGER)).is_in(State.CLOSING, 3.0)


def test_a_backend_that_does_not_take_the_body_is_a_504() -> None:
    it = Play().connected(POST).on(upstream_full, Action.PAUSE_CLIENT)
    closing = own(504, close=True), Action.RESUME_CLIENT, Action.LINGER
    it.on(deadline(), *stalled(Action.ABORT_UPSTREAM, *closing))


def test_a_backend_that_stalls_within_its_response_head_is_a_504() -> None:
    it = Play().connected().on(upstream(b"HTTP/1.1 2")).is_in(State.AWAITING, 60.0)
    it.now += 1.0
    it.on(upstream(b"00 OK")).is_in(State.AWAITING, 59.0)
    it.on(deadline(), *stalled(Action.ABORT_UPSTREAM, own(504), Action.END)).is_in(State.IDLE, 75.0)


def test_a_head_that_is_complete_in_time_ends_its_deadline() -> None:
    it = Play().connected().on(upstream(CHUNKED[:9])).is_in(State.AWAITING, 60.0)
    it.on(upstream(CHUNKED[9:]), StartResponse(200, CHUNKED)).is_in(State.STREAMING)


@pytest.mark.parametrize("event", [client_full, client_ends])
def test_a_response_that_its_client_does_not_take_is_cut(event: Event) -> None:
    it = Play().connected().on(upstream(CHUNKED), StartResponse(200, CHUNKED))
    event(it)
    it.is_in(State.STREAMING, 60.0 if event is client_full else 2.0)
    it.on(deadline(), *stalled(Action.ABORT_UPSTREAM, Action.ABORT)).is_in(State.CLOSED)


@pytest.mark.parametrize("until", [(), (found,)])
def test_a_client_that_has_ended_is_not_waited_for_without_a_backend(until: tuple[Event, ...]) -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND)
    for event in until:
        event(it)
    it.on(client_ends).is_in(State.CONNECTING if until else State.ROUTING, 2.0)
    it.on(deadline(), *stalled(Action.ABORT)).is_in(State.CLOSED)


def test_an_early_response_to_a_client_that_stalls_is_cut() -> None:
    begun = StartResponse(200, CHUNKED[:-4] + b"\r\nConnection: close\r\n\r\n")
    it = Play().connected(POST).on(upstream(CHUNKED), begun).is_in(State.EARLY, 60.0)
    it.on(deadline(), *stalled(Action.ABORT_UPSTREAM, Action.ABORT)).is_in(State.CLOSED)


def test_a_closing_connection_whose_client_takes_nothing_is_cut() -> None:
    Play().on(client_ends, Action.CLOSE).on(deadline(), Action.ABORT).is_in(State.CLOSED).on(deadline())
    Play().on(client(b"\0"), own(400, close=True), Action.LINGER).on(deadline(), Action.ABORT)


def test_a_slow_reader_gets_more_time_for_as_long_as_it_reads() -> None:
    it = Play().connected().on(upstream(CHUNKED), StartResponse(200, CHUNKED)).on(client_full, Action.PAUSE_UPSTREAM)
    for unsent_bytes in (1000, 900):
        it.now += 60.0
        it.on(deadline(unsent_bytes)).is_in(State.STREAMING, 60.0)
    it.on(deadline(900), *stalled(Action.ABORT_UPSTREAM, Action.ABORT))
