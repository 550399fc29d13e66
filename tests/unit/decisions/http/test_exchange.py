"""An exchange, as scripts of events and the commands that must result from them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    POST_CHUNKED,
    SWITCHING,
    UPGRADE,
    Event,
    Play,
    client,
    client_drained,
    client_ends,
    client_full,
    client_goes,
    connects,
    cut,
    deadline,
    found,
    own,
    reads_next,
    refused,
    responds,
    reuses,
    times_out,
    upstream,
    upstream_breaks,
    upstream_drained,
    upstream_ends,
    upstream_full,
)
from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.exchange import PENDING_LIMIT_BYTES
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
