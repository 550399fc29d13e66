"""What an exchange makes of its backend's bytes: framing, heads, upgrades, backpressure."""

from __future__ import annotations

import pytest

from harness.exchange_play import (
    CHUNKED,
    END,
    GET,
    GET_1_0,
    GET_CLOSE,
    HEAD,
    OK,
    OK_SENT,
    POST,
    SWITCHING,
    UPGRADE,
    Event,
    Play,
    client,
    client_drained,
    client_ends,
    client_full,
    connects,
    cut,
    deadline,
    found,
    own,
    reads_next,
    reuses,
    upstream,
    upstream_breaks,
    upstream_drained,
    upstream_ends,
    upstream_full,
)
from plane.decisions.http.exchange_commands import (
    Action,
    Connect,
    FinishResponse,
    Incident,
    Report,
    SendClient,
    SendUpstream,
    StartResponse,
    StartTunnel,
)
from plane.decisions.http.exchange_states import State
from plane.decisions.http.response_head import CORS_FIELDS


def test_a_100_continue_is_passed_on_before_the_response() -> None:
    it = Play().connected(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    it.on(upstream(b"HTTP/1.1 100 Continue\r\n\r\n"), SendClient(b"HTTP/1.1 100 Continue\r\n\r\n"))
    it.on(client(b"hello"), SendUpstream(b"hello")).on(upstream(OK), OK_SENT)


def test_a_client_of_http_1_0_gets_no_interim_response() -> None:
    it = Play().connected(GET_1_0)
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    it.on(upstream(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK), FinishResponse(200, sent)).is_in(State.IDLE, 75.0)


@pytest.mark.parametrize("rest", [b"", b"hello", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("head", [b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 Not\r\n\r\n"])
def test_a_status_without_a_body_has_none_whatever_comes(head: bytes, rest: bytes) -> None:
    it = Play().connected()
    if rest:
        it.on(upstream(head + rest), StartResponse(int(head[9:12]), head), Action.ABORT_UPSTREAM, Action.END)
    else:
        it.on(upstream(head), FinishResponse(int(head[9:12]), head))
    it.is_in(State.IDLE, 75.0)


def test_a_response_to_head_has_no_body_and_its_connection_stays_with_the_client() -> None:
    head = OK[:-2]
    it = Play().connected(HEAD).on(upstream(head), StartResponse(200, head), Action.KEEP_UPSTREAM, Action.END)
    it.connected(HEAD).on(upstream(OK), StartResponse(200, head), Action.ABORT_UPSTREAM, Action.END)


def test_bytes_after_the_end_are_dropped_with_their_connection() -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    it = Play().connected()
    it.on(upstream(OK + extra), StartResponse(200, OK[:-2]), SendClient(b"ok"), Action.ABORT_UPSTREAM, Action.END)
    it.connected().on(upstream(OK[:-1]), StartResponse(200, OK[:-2]), SendClient(b"o"))
    it.on(upstream(b"k" + extra), SendClient(b"k"), Action.ABORT_UPSTREAM, Action.END)
    it.connected().on(upstream(CHUNKED), StartResponse(200, CHUNKED))
    it.on(upstream(b"0\r\n\r\n" + extra), SendClient(b"0\r\n\r\n"), Action.ABORT_UPSTREAM, Action.END)


@pytest.mark.parametrize("event", [upstream_ends, upstream_breaks])
def test_a_body_shorter_than_announced_is_cut(event: Event) -> None:
    it = Play().connected().on(upstream(OK[:-1]), StartResponse(200, OK[:-2]), SendClient(b"o"))
    it.is_in(State.STREAMING).on(event, Action.ABORT).is_in(State.CLOSED)


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    begun = StartResponse(200, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    it = Play().connected().on(upstream(head + b"a"), begun, SendClient(b"a")).on(upstream(b"b"), SendClient(b"b"))
    it.on(upstream_ends, Action.CLOSE).is_in(State.CLOSING, 50.0)
    # An orderly end would mean that the response is complete.
    it = Play().connected().on(upstream(head), begun).on(upstream_breaks, Action.RESET).is_in(State.CLOSED)


def test_a_client_of_http_1_0_gets_the_data_of_a_chunked_body_and_then_the_end() -> None:
    it = Play().connected(GET_1_0)
    begun = StartResponse(200, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    it.on(upstream(CHUNKED + b"2\r\nok\r\n"), begun, SendClient(b"ok")).on(upstream(b"1"))
    it.on(upstream(b"\r\n!\r\n0\r\n\r\n"), SendClient(b"!"), Action.POOL_UPSTREAM, Action.CLOSE)
    it = Play().connected(GET_1_0).on(upstream(CHUNKED), begun).on(upstream_ends, Action.RESET)


def test_chunks_pass_as_they_are_and_malformed_ones_cut_the_response() -> None:
    it = Play().connected().on(upstream(CHUNKED), StartResponse(200, CHUNKED)).is_in(State.STREAMING)
    it.on(upstream(b"2\r\nok\r\n"), SendClient(b"2\r\nok\r\n"))
    report = Report(Incident.RESPONSE_INVALID, 0, "malformed chunk size")
    it.on(upstream(b"x\r\n"), report, Action.ABORT_UPSTREAM, Action.ABORT).is_in(State.CLOSED)


def test_a_response_that_is_not_http_is_a_502() -> None:
    it = Play().connected()
    report = Report(Incident.RESPONSE_INVALID, 0, "malformed head")
    it.on(upstream(b"SSH-2.0"), report, Action.ABORT_UPSTREAM, own(502), Action.END).is_in(State.IDLE, 75.0)
    it.connected().on(upstream(b"HTTP/1.1 2000\r\n\r\n"), report, Action.ABORT_UPSTREAM, own(502), Action.END)
    report = Report(Incident.RESPONSE_INVALID, 0, "response head too large")
    it.connected().on(upstream(b"HTTP/1.1 200 " + b"a" * 300_000), report, Action.ABORT_UPSTREAM, own(502), Action.END)


def test_a_backend_that_closes_before_its_response_is_a_502() -> None:
    it = Play().connected().on(upstream(b"HTTP/1.1 2")).on(upstream_ends, own(502), Action.END)
    it.connected(POST).on(upstream_breaks, own(502, close=True), Action.LINGER).is_in(State.CLOSING, 3.0)


def test_a_backend_that_closes_its_connection_gets_no_further_request_on_it() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    sent = StartResponse(200, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    Play().connected().on(upstream(head), sent, Action.ABORT_UPSTREAM, Action.END).is_in(State.IDLE, 75.0)


def test_a_client_that_wants_the_end_gets_it_after_the_response() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    it = Play().connected(GET_CLOSE).on(upstream(OK), FinishResponse(200, sent), Action.CLOSE)
    it.is_in(State.CLOSING, 50.0)


def test_an_early_response_closes_when_it_is_complete_and_waits_for_a_client_that_still_sends() -> None:
    early = b"HTTP/1.1 413 Big\r\nContent-Length: 2\r\n\r\n"
    sent = b"HTTP/1.1 413 Big\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    it = Play().connected(POST).on(upstream(early), StartResponse(413, sent)).is_in(State.EARLY, 60.0)
    it.on(client(b"he"), SendUpstream(b"he"))
    it.on(upstream(b"no"), SendClient(b"no"), Action.ABORT_UPSTREAM, Action.LINGER).is_in(State.CLOSING, 3.0)
    it.on(client(b"llo" + GET)).on(client_ends, Action.CLOSE)
    # Also if it is complete at once.
    sent_at_once = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    it = Play().connected(POST).on(upstream(OK), StartResponse(200, sent_at_once), Action.ABORT_UPSTREAM, Action.LINGER)
    # Also if the body is complete by then: it was announced.
    it = Play().connected(POST).on(upstream(early), StartResponse(413, sent))
    it.on(client(b"hello"), SendUpstream(b"hello")).is_in(State.STREAMING)
    it.on(upstream(b"no"), SendClient(b"no"), Action.POOL_UPSTREAM, Action.CLOSE)


def test_a_request_is_sent_again_when_the_reused_connection_was_stale() -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND).on(found, Connect.REPEATABLE).on(reuses, Action.SEND_HEAD)
    it.on(upstream_breaks, Connect.NEW).is_in(State.CONNECTING)
    it.on(connects, Action.SEND_HEAD).on(upstream_breaks, own(502), Action.END)


@pytest.mark.parametrize("request_bytes", [POST + b"hello", b"DELETE /t/ HTTP/1.1\r\nHost: c:1\r\n\r\n"])
def test_a_request_that_is_not_repeatable_is_not_sent_again(request_bytes: bytes) -> None:
    it = Play().on(client(request_bytes), Action.FIND_BACKEND).on(found, Connect.ONCE)
    body = [SendUpstream(b"hello")] if request_bytes.endswith(b"hello") else []
    it.on(reuses, Action.SEND_HEAD, *body).on(upstream_breaks, own(502), Action.END)


def test_a_request_whose_response_has_begun_is_not_sent_again() -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND).on(found, Connect.REPEATABLE).on(reuses, Action.SEND_HEAD)
    it.on(upstream(b"H")).on(upstream_breaks, own(502), Action.END)


def test_an_upgrade_begins_a_tunnel_with_the_bytes_that_came_early_on_both_sides() -> None:
    it = Play().connected(UPGRADE).on(client(b"from client"))
    sent = b"HTTP/1.1 101 Switching Protocols" + CORS_FIELDS + b"\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
    it.on(upstream(SWITCHING + b"from backend"), StartTunnel(sent + b"from backend", b"from client"))
    it.is_in(State.TUNNEL).on(deadline()).on(cut).on(client(GET)).is_in(State.TUNNEL)


def test_an_upgrade_without_a_request_for_it_is_a_502() -> None:
    report = Report(Incident.RESPONSE_INVALID, 0, "101 without a request for an upgrade")
    Play().connected().on(upstream(SWITCHING), report, Action.ABORT_UPSTREAM, own(502), Action.END)


def test_a_backend_may_decline_an_upgrade() -> None:
    Play().connected(UPGRADE).on(upstream(OK), OK_SENT).is_in(State.IDLE, 75.0)


def test_a_client_that_does_not_read_pauses_its_backend_and_gets_no_further_request_served() -> None:
    it = Play().connected(GET + GET).on(upstream(OK[:-1]), StartResponse(200, OK[:-2]), SendClient(b"o"))
    it.on(client_full, Action.PAUSE_UPSTREAM).is_in(State.STREAMING, 60.0)
    it.on(upstream(b"k"), SendClient(b"k"), Action.RESUME_UPSTREAM, *END, Action.READ_NEXT)
    it.on(reads_next).on(client(GET)).is_in(State.IDLE, 75.0)
    it.on(client_drained, Action.FIND_BACKEND)


def test_a_connection_that_was_paused_for_its_client_is_given_back_unpaused() -> None:
    it = Play().connected().on(client_full, Action.PAUSE_UPSTREAM)
    it.on(upstream(OK), StartResponse(200, OK), Action.RESUME_UPSTREAM, *END).is_in(State.IDLE, 75.0)


def test_a_client_that_reads_again_resumes_its_backend() -> None:
    it = Play().connected().on(upstream(CHUNKED), StartResponse(200, CHUNKED))
    it.on(client_full, Action.PAUSE_UPSTREAM).on(client_drained, Action.RESUME_UPSTREAM).is_in(State.STREAMING)


def test_a_backend_that_does_not_read_pauses_the_client() -> None:
    it = Play().connected(POST).on(client(b"h"), SendUpstream(b"h")).on(upstream_full, Action.PAUSE_CLIENT)
    it.on(upstream_drained, Action.RESUME_CLIENT).on(upstream_full, Action.PAUSE_CLIENT)
    # What it has not read would be in front of the next request.
    it.on(client(b"ello"), SendUpstream(b"ello"))
    it.on(upstream(OK), StartResponse(200, OK), Action.ABORT_UPSTREAM, Action.END, Action.RESUME_CLIENT)
