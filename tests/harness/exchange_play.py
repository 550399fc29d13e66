"""Plays scripts of events to an exchange, and compares the commands that result from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.exchange import Exchange
from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Connect,
    FinishResponse,
    StartResponse,
)
from plane.decisions.http.exchange_states import State
from plane.decisions.http.exchange_steps import ExchangeRules
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts
from plane.decisions.http.request_head import RequestReader
from plane.decisions.http.response_head import CORS_FIELDS
from plane.decisions.http.response_reader import ResponseReader
from plane.decisions.routing.host_names import HostNames

__all__ = [
    "ADDED",
    "CHUNKED",
    "END",
    "GET",
    "GET_1_0",
    "GET_CLOSE",
    "HEAD",
    "OK",
    "OK_SENT",
    "POST",
    "POST_CHUNKED",
    "RULES",
    "SWITCHING",
    "TIMEOUTS",
    "UPGRADE",
    "Event",
    "Play",
    "client",
    "client_drained",
    "client_ends",
    "client_full",
    "client_goes",
    "connects",
    "cut",
    "deadline",
    "found",
    "own",
    "reads_next",
    "refused",
    "rendered",
    "responds",
    "reuses",
    "times_out",
    "upstream",
    "upstream_breaks",
    "upstream_drained",
    "upstream_ends",
    "upstream_full",
    "without_added_fields",
]

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
