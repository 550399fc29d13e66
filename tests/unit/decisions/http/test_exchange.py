"""An exchange, as scripts of events and the commands that must result from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.exchange import PENDING_LIMIT_BYTES, Exchange, ExchangeRules
from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Connect,
    FinishResponse,
    Incident,
    Report,
    SendClient,
    SendUpstream,
    StartResponse,
    StartTunnel,
)
from plane.decisions.http.exchange_states import TRANSITIONS, State
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts
from plane.decisions.http.request_head import RequestReader
from plane.decisions.http.response_head import CORS_FIELDS
from plane.decisions.http.response_reader import ResponseReader
from plane.decisions.routing.host_names import HostNames

GET = b"GET /t/ HTTP/1.1\r\nHost: c:1\r\n\r\n"
GET_CLOSE = b"GET /t/ HTTP/1.1\r\nHost: c:1\r\nConnection: close\r\n\r\n"
GET_1_0 = b"GET /t/ HTTP/1.0\r\nHost: c:1\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /t/ HTTP/1.1\r\nHost: c:1\r\n\r\n"
POST = b"POST /t/ HTTP/1.1\r\nHost: c:1\r\nContent-Length: 5\r\n\r\n"
POST_CHUNKED = b"POST /t/ HTTP/1.1\r\nHost: c:1\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET /t/ HTTP/1.1\r\nHost: c:1\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"

TIMEOUTS = ExchangeTimeouts(
    head_s=10.0, idle_s=75.0, body_s=60.0, half_closed_s=2.0, closing_s=50.0, linger_s=3.0, first_request_s=1.0
)
# What the proxy adds to each response.
ADDED = (CORS_FIELDS, b"\r\nReferrer-Policy: same-origin")

OK_SENT = FinishResponse(200, OK)
END = [Action.POOL_UPSTREAM, Action.END]

Event: TypeAlias = Callable[["Play"], list[Command]]


def rendered(status: int, form: ErrorFormat, /, *, close: bool) -> bytes:
    end = b"\r\nConnection: close" if close else b""
    return b"HTTP/1.1 %d x%b\r\n\r\n%b" % (status, end, form.name.encode())


def own(status: int, form: ErrorFormat = ErrorFormat.JSON, *, close: bool = False) -> StartResponse:
    return StartResponse(status, rendered(status, form, close=close))


RULES = ExchangeRules(requests=RequestReader(HostNames(b"c:1")), render=rendered, timeouts=TIMEOUTS)


class Play:
    """Plays events to an exchange at the time ``now``."""

    def __init__(self, *, can_half_close: bool = True) -> None:
        self.exchange = Exchange(RULES, can_half_close=can_half_close)
        self.now = 100.0
        self.responses = ResponseReader()
        self.exchange.opened(self.now)

    def on(self, event: Event, *expected: Command) -> Play:
        """Play ``event``; the commands must be the expected ones."""
        assert [without_added_fields(command) for command in event(self)] == list(expected)
        return self

    def is_in(self, state: State, timeout_s: float | None = None) -> Play:
        """The exchange must be in ``state``, with a deadline after ``timeout_s``."""
        assert self.exchange.state is state
        assert self.exchange.deadline == (None if timeout_s is None else self.now + timeout_s)
        return self

    def connected(self, request: bytes = GET) -> Play:
        """Play the beginning of a request, until it is sent to a new connection."""
        how = Connect.REPEATABLE if request[:4] in (b"GET ", b"HEAD") else Connect.ONCE
        return self.on(client(request), Action.FIND_BACKEND).on(found, how).on(connects, Action.SEND_HEAD)


def without_added_fields(command: Command) -> Command:
    if isinstance(command, StartResponse | FinishResponse):
        data = command.data
        for field in ADDED:
            data = data.replace(field, b"")
        return type(command)(command.status, data)
    return command


def client(data: bytes) -> Event:
    return lambda it: it.exchange.client_bytes(data, it.now)


def upstream(data: bytes) -> Event:
    return lambda it: it.exchange.upstream_bytes(data, it.now)


def found(it: Play) -> list[Command]:
    how = it.exchange.backend_found(b"", b"", b"")
    return [] if how is None else [how]


def connects(it: Play, *, reused: bool = False) -> list[Command]:
    return it.exchange.connected(it.responses, it.now, reused=reused)


def reuses(it: Play) -> list[Command]:
    return connects(it, reused=True)


def refused(it: Play) -> list[Command]:
    return it.exchange.connect_failed(it.now, timed_out=False)


def times_out(it: Play) -> list[Command]:
    return it.exchange.connect_failed(it.now, timed_out=True)


def client_ends(it: Play) -> list[Command]:
    return it.exchange.client_eof(it.now)


def client_goes(it: Play) -> list[Command]:
    return it.exchange.client_lost()


def upstream_ends(it: Play) -> list[Command]:
    return it.exchange.upstream_lost(it.now, orderly=True)


def upstream_breaks(it: Play) -> list[Command]:
    return it.exchange.upstream_lost(it.now, orderly=False)


def client_full(it: Play) -> list[Command]:
    return it.exchange.client_full(it.now)


def client_drained(it: Play) -> list[Command]:
    return it.exchange.client_drained(it.now)


def upstream_full(it: Play) -> list[Command]:
    return it.exchange.upstream_full()


def upstream_drained(it: Play) -> list[Command]:
    return it.exchange.upstream_drained()


def reads_next(it: Play) -> list[Command]:
    return it.exchange.read_next(it.now)


def deadline(unsent_bytes: int = 0) -> Event:
    return lambda it: it.exchange.deadline_passed(unsent_bytes, it.now)


def cut(it: Play) -> list[Command]:
    return it.exchange.cut()


def responds(status: int) -> Event:
    return lambda it: it.exchange.respond(status, it.now)


# Requests one after another.


def test_a_connection_serves_one_request_after_another() -> None:
    it = Play().is_in(State.IDLE, 10.0).connected().is_in(State.AWAITING)
    it.on(upstream(OK), OK_SENT).is_in(State.IDLE, 75.0)
    it.connected().on(upstream(OK), OK_SENT).is_in(State.IDLE, 75.0)


def test_a_pipelined_request_waits_for_the_response_before_it() -> None:
    it = Play().connected(GET + POST + b"hello")
    it.on(upstream(OK), StartResponse(200, OK), *END, Action.READ_NEXT).is_in(State.IDLE, 75.0)
    it.on(reads_next, Action.FIND_BACKEND).on(found, Connect.ONCE)
    it.on(connects, Action.SEND_HEAD, SendUpstream(b"hello")).is_in(State.AWAITING)


def test_a_client_that_pipelines_much_is_not_read_until_its_turn() -> None:
    it = Play().connected().on(client(bytes(PENDING_LIMIT_BYTES))).on(client(b"x"), Action.PAUSE_CLIENT)
    it.on(upstream(OK), StartResponse(200, OK), *END, Action.READ_NEXT)
    it.on(reads_next, own(431, close=True), Action.RESUME_CLIENT, Action.LINGER)


def test_a_head_may_come_in_parts_after_an_empty_line() -> None:
    it = Play().on(client(b"\r\nGET /t/ HTTP/1.1\r\nHo")).is_in(State.IDLE, 10.0)
    it.on(client(b"st: c:1\r\n\r\n"), Action.FIND_BACKEND).is_in(State.ROUTING)


def test_the_head_of_a_later_request_has_a_time_limit_too() -> None:
    it = Play().connected().on(upstream(OK), OK_SENT).is_in(State.IDLE, 75.0)
    it.on(client(b"GET")).is_in(State.IDLE, 10.0)
    it.now += 5.0
    it.on(client(b" /t/")).is_in(State.IDLE, 5.0)
    it.on(deadline(), own(408, close=True), Action.LINGER)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"GET /t/ HTTP/1.1\r\n\r\n", 400, "exactly one well-formed Host is needed"),
        (b"GET http://other/ HTTP/1.1\r\nHost: c:1\r\n\r\n", 400, "target and Host differ"),
        (b"GET /t/ HTTP/2.0\r\nHost: c:1\r\n\r\n", 505, "only HTTP/1 is supported"),
        (b"\x16\x03\x01", 400, ""),
        (b"GET /" + b"a" * 70_000, 431, ""),
    ],
)
def test_a_malformed_request_is_refused_and_the_connection_closes(data: bytes, status: int, reason: str) -> None:
    report = [Report(Incident.REQUEST_REFUSED, status, reason)] if reason else []
    it = Play().on(client(data), *report, own(status, close=True), Action.LINGER).is_in(State.CLOSING, 3.0)
    it.on(client(GET)).on(client_ends, Action.CLOSE).on(client_goes).is_in(State.CLOSED)


def test_a_response_of_the_proxys_own_needs_no_backend() -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND)
    it.on(responds(410), own(410), Action.END).is_in(State.IDLE, 75.0)
    it.on(client(HEAD), Action.FIND_BACKEND)
    it.on(responds(410), StartResponse(410, b"HTTP/1.1 410 x\r\n\r\n"), Action.END)
    it.on(client(POST), Action.FIND_BACKEND)
    it.on(responds(410), own(410, close=True), Action.LINGER).is_in(State.CLOSING, 3.0)


def test_an_error_has_the_format_that_the_client_accepts() -> None:
    it = Play().on(client(GET[:-2] + b"Accept: text/html\r\n\r\n"), Action.FIND_BACKEND)
    it.on(responds(410), own(410, ErrorFormat.PAGE), Action.END)


@pytest.mark.parametrize(("event", "status"), [(refused, 502), (times_out, 504)])
def test_a_backend_that_is_not_reached_is_a_5xx(event: Event, status: int) -> None:
    it = Play().on(client(GET), Action.FIND_BACKEND).on(found, Connect.REPEATABLE)
    it.on(event, own(status), Action.END).is_in(State.IDLE, 75.0)


# Framing of the request.


def test_a_body_is_passed_on_until_its_end_and_no_further() -> None:
    it = Play().connected(POST).is_in(State.SENDING, 60.0)
    it.on(client(b"hel"), SendUpstream(b"hel")).is_in(State.SENDING, 60.0)
    it.on(client(b"lo" + GET), SendUpstream(b"lo")).is_in(State.AWAITING)
    it.on(upstream(OK), StartResponse(200, OK), *END, Action.READ_NEXT).on(reads_next, Action.FIND_BACKEND)


def test_a_body_that_comes_during_the_lookup_waits_for_the_connection() -> None:
    it = Play().on(client(POST + b"he"), Action.FIND_BACKEND).on(client(b"l")).on(found, Connect.ONCE)
    it.on(connects, Action.SEND_HEAD, SendUpstream(b"hel")).is_in(State.SENDING, 60.0)


def test_malformed_chunks_are_refused_before_a_response_and_cut_after_it_has_begun() -> None:
    report = Report(Incident.REQUEST_REFUSED, 400, "malformed chunk size")
    it = Play().connected(POST_CHUNKED)
    it.on(client(b"x\r\n"), Action.ABORT_UPSTREAM, report, own(400, close=True), Action.LINGER)
    it = (
        Play()
        .connected(POST_CHUNKED)
        .on(upstream(CHUNKED), StartResponse(200, CHUNKED[:-4] + b"\r\nConnection: close\r\n\r\n"))
    )
    it.on(client(b"x\r\n"), Action.ABORT_UPSTREAM, report, Action.ABORT).is_in(State.CLOSED)


def test_malformed_chunks_that_came_during_the_lookup_are_refused_too() -> None:
    it = Play().on(client(POST_CHUNKED + b"x\r\n"), Action.FIND_BACKEND).on(found, Connect.ONCE)
    report = Report(Incident.REQUEST_REFUSED, 400, "malformed chunk size")
    it.on(connects, Action.SEND_HEAD, Action.ABORT_UPSTREAM, report, own(400, close=True), Action.LINGER)


def test_a_100_continue_is_passed_on_before_the_response() -> None:
    it = Play().connected(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    it.on(upstream(b"HTTP/1.1 100 Continue\r\n\r\n"), SendClient(b"HTTP/1.1 100 Continue\r\n\r\n"))
    it.on(client(b"hello"), SendUpstream(b"hello")).on(upstream(OK), OK_SENT)


def test_a_client_of_http_1_0_gets_no_interim_response() -> None:
    it = Play().connected(GET_1_0)
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    it.on(upstream(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK), FinishResponse(200, sent)).is_in(State.IDLE, 75.0)


# Framing of the response.


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


# Reused connections.


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


# Upgrades.


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


# Backpressure.


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


# Ends of the client.


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


# Deadlines.


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


# The end of the proxy.


def test_a_proxy_that_stops_closes_after_the_response() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    it = Play().connected()
    it.exchange.stop(it.now)
    it.is_in(State.AWAITING).on(upstream(OK), FinishResponse(200, sent), Action.CLOSE)


def test_a_client_that_connected_before_the_stop_may_send_a_request_for_a_moment() -> None:
    it = Play()
    it.exchange.stop(it.now)
    it.is_in(State.IDLE, 1.0).connected()
    it = Play()
    it.exchange.opened(it.now, stopping=True)
    it.is_in(State.IDLE, 1.0).on(deadline(), Action.CLOSE)


def test_a_response_that_ends_with_its_connection_is_not_cut_in_an_orderly_way() -> None:
    begun = StartResponse(200, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    it = Play().connected().on(upstream(b"HTTP/1.1 200 OK\r\n\r\n"), begun)
    it.on(cut, Action.ABORT_UPSTREAM, Action.RESET).is_in(State.CLOSED)


def test_a_route_that_leads_nowhere_any_more_cuts_its_request() -> None:
    Play().connected().on(cut, Action.ABORT_UPSTREAM, Action.ABORT).is_in(State.CLOSED).on(cut)
    Play().on(cut, Action.ABORT).is_in(State.CLOSED)


# Properties.

REQUESTS = st.sampled_from(
    [
        GET,
        GET_CLOSE,
        GET_1_0,
        HEAD,
        POST,
        POST_CHUNKED,
        UPGRADE,
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"G",
        b"\0",
    ]
)
RESPONSES = st.sampled_from(
    [
        OK, CHUNKED, SWITCHING, OK[:-1], b"k", b"2\r\nok\r\n", b"0\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No\r\n\r\n",
        b"H", b"x",
    ]
)  # fmt: skip
EVENTS: st.SearchStrategy[Event] = st.one_of(
    REQUESTS.map(client),
    RESPONSES.map(upstream),
    st.sampled_from(
        [
            found, connects, reuses, refused, times_out, client_ends, client_goes, upstream_ends, upstream_breaks,
            client_full, client_drained, upstream_full, upstream_drained, reads_next, cut, responds(410),
        ]
    ),
    st.integers(0, 2).map(deadline),
)  # fmt: skip
# Long enough to come far more often than by chance.
SCRIPTS = st.lists(st.one_of(EVENTS, st.sampled_from([client(GET), found, connects, upstream(OK)])), max_size=30)


class Watch:
    """Follows the commands of an exchange, as a shell would, and checks what must hold for each of them."""

    def __init__(self) -> None:
        self.begun = self.over = False
        # Connections to the backend that were neither given back nor closed.
        self.connections = 0

    def see(self, event: Event, commands: list[Command]) -> None:
        if event in (connects, reuses):
            self.connections += 1
        for command in commands:
            match command:
                case Action.FIND_BACKEND:
                    self.begun = False
                case StartResponse() | FinishResponse():
                    assert not self.begun, "two heads"
                    assert not self.over, "a response after the end"
                    self.begun = True
                case SendClient(data):
                    assert data
                    assert self.begun or data.startswith(b"HTTP/1.1 1"), "a body without a head"
                    assert not self.over, "bytes after the end"
                case Action.CLOSE | Action.LINGER | Action.ABORT | Action.RESET:
                    self.over = True
            match command:
                case Action.END | FinishResponse():
                    self.begun = False
            match command:
                case (
                    Action.POOL_UPSTREAM
                    | Action.KEEP_UPSTREAM
                    | Action.ABORT_UPSTREAM
                    | StartTunnel()
                    | FinishResponse()
                ):
                    self.connections -= 1


def reachable(start: State) -> set[State]:
    """The states that one call may lead to: a call may pass several transitions."""
    seen, todo = {start}, [start]
    while todo:
        for state in TRANSITIONS[todo.pop()].values():
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return seen


@settings(max_examples=500)
@given(SCRIPTS, st.booleans())
def test_no_events_lead_to_an_error_or_to_bytes_that_belong_to_no_response(
    events: list[Event], can_half_close: bool
) -> None:
    it, watch = Play(can_half_close=can_half_close), Watch()
    for event in events:
        before, attached = it.exchange.state, it.exchange._responses is not None
        commands = event(it)
        if event in (upstream_ends, upstream_breaks) and attached:
            watch.connections -= 1
        watch.see(event, commands)
        it.now += 1.0
        assert it.exchange.state in reachable(before)
        assert watch.connections == (it.exchange._responses is not None)
        assert watch.over == (it.exchange.state in (State.CLOSING, State.CLOSED)) or client_goes in events
    # Every exchange ends, once nothing more comes than the ends of what it waits for.
    for event in (refused, responds(504), upstream_breaks, *[deadline()] * 3):
        event(it)
    assert it.exchange.state in (State.CLOSED, State.TUNNEL)


def effects(commands: list[Command]) -> tuple[bytes, list[Command]]:
    """What the client gets, and the other commands; `FinishResponse` as the commands that it stands for.

    A connection that closes ends its exchange, with or without `Action.END`.
    """
    sent, others = b"", list[Command]()
    for command in commands:
        match command:
            case StartResponse(_, data) | SendClient(data):
                sent += data
            case FinishResponse(_, data):
                sent += data
                others += END
            case Action.CLOSE:
                others = [*(other for other in others if other is not Action.END), command]
            case _:
                others.append(command)
    return sent, others


FRAMED_BODIES = [
    b"Content-Length: 2\r\n\r\nok",
    b"Content-Length: 0\r\n\r\n",
    b"\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
]


@settings(max_examples=500)
@given(
    st.sampled_from([GET, GET + GET, GET_CLOSE, GET_1_0, HEAD, POST, POST + b"hello", POST_CHUNKED + b"0\r\n\r\n"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]),
    st.sampled_from([b"200 OK", b"204 No", b"304 Not", b"103 Hints"]),
    st.sampled_from([b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"]),
    st.sampled_from(FRAMED_BODIES),
    st.lists(st.one_of(st.integers(0, 100), st.integers(-6, -1)), max_size=3),
    st.sampled_from([(), (client_full,), (upstream_full,), (client_ends,)]),
)
def test_a_response_in_one_piece_has_the_same_effect_as_in_several(
    request_bytes: bytes,
    version: bytes,
    line: bytes,
    connection: bytes,
    framed: bytes,
    cuts: list[int],
    before: tuple[Event, ...],
) -> None:
    """`FinishResponse`, the shortcut for a response that is complete at once, changes nothing but the cost."""
    response = version + b" " + line + b"\r\n" + connection + framed
    if request_bytes == HEAD or line != b"200 OK":
        # Without a body by rule. What comes after it has a test of its own.
        response = response[: response.index(b"\r\n\r\n") + 4]
    results = []
    for places in ([], sorted(place % len(response) for place in cuts)):
        it = Play().on(client(request_bytes), Action.FIND_BACKEND)
        found(it)
        connects(it)
        for event in before:
            event(it)
        commands = list[Command]()
        for start, end in itertools.pairwise([0, *places, len(response)]):
            if response[start:end]:
                commands += upstream(response[start:end])(it)
        results.append((*effects(commands), it.exchange.state, it.exchange.deadline))
    assert results[0] == results[1]
