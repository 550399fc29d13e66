"""One request and its response, as a state machine: what is read, sent, reused, closed and waited for.

`Exchange` takes events and returns commands; `plane.proxy.data_plane.client_connection` reports the ones and executes
the others. It serves the requests of one client connection, one after another: a request that comes early waits, and
reading stops when much waits. `exchange_states` has the states and their transitions, `exchange_commands` what is
returned, and `exchange_timeouts` how long each state may last.

Times are in seconds of a monotonic clock. `Exchange.deadline` is when `Exchange.deadline_passed` is to be called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from plane.decisions.http.chunks import MalformedChunks
from plane.decisions.http.error_format import ErrorFormat, error_format
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
from plane.decisions.http.exchange_states import TRANSITIONS, Event, State
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.request_body import NO_BODY, RequestBody
from plane.decisions.http.request_head import (
    REPEATABLE,
    RequestHead,
    RequestReader,
    RequestRefused,
    could_become_request,
)
from plane.decisions.http.response_head import UNTIL_CLOSE, InvalidResponse, ResponseHead, without_chunked_framing
from plane.decisions.http.response_reader import ResponseReader
from plane.decisions.http.stall_timeout import StallAction, stall_action
from plane.decisions.routing.prefix_rewrite import below_prefix
from plane.decisions.routing.rewrite import origin_form

__all__ = ["PENDING_LIMIT_BYTES", "Exchange", "ExchangeRules", "Render"]

# Bytes of later requests that may wait while one is served.
PENDING_LIMIT_BYTES: Final = 64 * 1024

# Members of enumerations on the path of every request. In Python 3.11 the access to a member takes 70 ns to 90 ns, a
# transition takes 30 ns.
_IDLE, _ROUTING, _CONNECTING, _AWAITING = State.IDLE, State.ROUTING, State.CONNECTING, State.AWAITING
_STREAMING, _CLOSING, _CLOSED, _TUNNEL = State.STREAMING, State.CLOSING, State.CLOSED, State.TUNNEL
_OVER = (_CLOSING, _CLOSED, _TUNNEL)
_AFTER_REQUEST_HEAD: Final = TRANSITIONS[_IDLE][Event.REQUEST_HEAD]
_AFTER_BACKEND_FOUND: Final = TRANSITIONS[_ROUTING][Event.BACKEND_FOUND]
_AFTER_CONNECTED: Final = TRANSITIONS[_CONNECTING][Event.CONNECTED]
_AFTER_CONNECTED_WITHOUT_BODY: Final = TRANSITIONS[_AFTER_CONNECTED][Event.REQUEST_END]
_FIND_BACKEND, _SEND_HEAD, _CLOSE, _LINGER = Action.FIND_BACKEND, Action.SEND_HEAD, Action.CLOSE, Action.LINGER
_REPEATABLE = Connect.REPEATABLE
_PAUSE_UPSTREAM, _RESUME_UPSTREAM = Action.PAUSE_UPSTREAM, Action.RESUME_UPSTREAM
_RESPONSE_END, _LAST_RESPONSE_END, _CUT = Event.RESPONSE_END, Event.LAST_RESPONSE_END, Event.CUT


class Render(Protocol):
    """Renders a response of the proxy's own. ``close``: the connection closes after it."""

    def __call__(self, status: int, form: ErrorFormat, /, *, close: bool) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRules:
    """What all exchanges of a proxy have in common.

    Attributes:
        requests: reads request heads.
        render: renders a response of the proxy's own.
    """

    requests: RequestReader
    render: Render
    timeouts: ExchangeTimeouts
    limits: HttpLimits = DEFAULT_LIMITS


class Exchange:
    """The exchanges of one client connection, one after another.

    Args:
        can_half_close: whether either side may end its direction alone; with TLS neither may.

    Attributes:
        state: see `State`.
        head: of the request that is being served.
        deadline: when `deadline_passed` is to be called. None: the wait is not limited.
        client_paused: the client reads more slowly than its responses come. No further request is begun then.
        client_ended: the client sends no more.
        upstream_paused: the backend reads more slowly than the request comes.
    """

    __slots__ = (
        "_body",
        "_can_half_close",
        "_ends_with_connection",
        "_head_begun",
        "_keep_alive",
        "_lingers",
        "_pending",
        "_reading_paused",
        "_repeatable",
        "_response_fields",
        "_response_head",
        "_responses",
        "_reused",
        "_rewritten_prefix",
        "_rules",
        "_stopping",
        "_switch_fields",
        "_unsent_bytes",
        "_upstream_responded",
        "client_ended",
        "client_paused",
        "deadline",
        "head",
        "state",
        "upstream_paused",
    )

    # Of the backend, set by `backend_found`. ``_repeatable``: the request may be sent twice.
    _response_fields: bytes
    _switch_fields: bytes
    _rewritten_prefix: bytes
    _repeatable: bool
    # Of the connection to it, set by `connected`.
    _reused: bool
    _upstream_responded: bool

    def __init__(self, rules: ExchangeRules, *, can_half_close: bool = True) -> None:
        self._rules = rules
        self._can_half_close = can_half_close
        self.state = _IDLE
        self.head: RequestHead | None = None
        self.deadline: float | None = None
        self.client_paused = False
        self.client_ended = False
        self.upstream_paused = False
        # Bytes of the client that do not belong to the current request, or cannot be passed on yet.
        self._pending = b""
        # Whether the deadline of an idle connection is that of a head.
        self._head_begun = True
        self._keep_alive = True
        self._body = NO_BODY
        # Reads the connection to the backend, while there is one.
        self._responses: ResponseReader | None = None
        self._response_head: ResponseHead | None = None
        # Whether the response is complete only when the connection ends.
        self._ends_with_connection = False
        self._reading_paused = False
        self._lingers = False
        self._stopping = False
        # The unsent bytes when the deadline passed last.
        self._unsent_bytes = 0

    # Events of the client's connection.

    def opened(self, now: float, *, stopping: bool = False) -> None:
        """Handle a new connection. ``stopping``: the proxy stops."""
        self.deadline = now + self._rules.timeouts.head_s
        if stopping:
            self.stop(now)

    def client_bytes(self, data: bytes, now: float) -> list[Command]:
        """Handle bytes from the client."""
        state = self.state
        if state is _IDLE:
            self._pending = self._pending + data if self._pending else data
            if not self.client_paused:
                return self.read_next(now)
        elif state in _OVER:
            return []
        elif self._responses is not None and not self._body.complete and not self._pending:
            commands: list[Command] = []
            self._pass_body(data, commands, now)
            if not self._pending:
                return commands
            if len(self._pending) > PENDING_LIMIT_BYTES:
                self._pause_client(commands)
            return commands
        else:
            self._pending = self._pending + data if self._pending else data
        commands = []
        if len(self._pending) > PENDING_LIMIT_BYTES:
            self._pause_client(commands)
        return commands

    def client_eof(self, now: float) -> list[Command]:
        """Handle the end of what the client sends. It still gets the response to a complete request."""
        self.client_ended = True
        state = self.state
        if state in _OVER:
            return [Action.CLOSE] if state is _CLOSING else []
        self._restart_deadline(now)
        if not self._can_half_close:
            # An end of TLS ends both directions.
            return self._close_now(now)
        if state is _IDLE:
            if self.client_paused and self._pending:
                return []
        elif self._body.complete or self._responses is None or self._pending:
            return []
        return self._refuse_incomplete(now)

    def client_lost(self) -> list[Command]:
        """Handle the close of the client's connection."""
        if self.state is not _CLOSED:
            self.state = TRANSITIONS[self.state][_CUT]
        self.deadline = None
        if self._responses is None:
            return []
        self._responses = None
        return [Action.ABORT_UPSTREAM]

    def client_full(self, now: float) -> list[Command]:
        """Handle a client that does not read what was sent to it."""
        self.client_paused = True
        if self._responses is None:
            self._restart_deadline(now)
            return []
        self.deadline = now + self._rules.timeouts.transfer_s(client_ended=self.client_ended)
        return [_PAUSE_UPSTREAM]

    def client_drained(self, now: float) -> list[Command]:
        """Handle a client that reads again."""
        self.client_paused = False
        if self.state is _STREAMING and not self.client_ended:
            # As `_restart_deadline` would, for a case that is frequent in large bodies.
            self.deadline = None
        else:
            self._restart_deadline(now)
        if self._responses is not None:
            return [_RESUME_UPSTREAM]
        return self.read_next(now)

    def read_next(self, now: float) -> list[Command]:
        """Begin with the first pending request, if none is served and the client reads."""
        if self.state is not _IDLE or self.client_paused:
            return []
        data = self._pending
        # One empty line before a request is allowed (RFC 9112, section 2.2).
        if data.startswith(b"\r\n"):
            data = data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._pending = data
            return self._wait_for_head(now)
        self._pending = data[end + 4 :]
        try:
            head = self._rules.requests.read(data[:end])
            if not head.target.startswith(b"/"):
                head.target = origin_form(head)
        except RequestRefused as refused:
            return self._refuse(refused.status, now, str(refused))
        self.state = _AFTER_REQUEST_HEAD
        self.deadline = None
        self.head = head
        self._response_head = None
        fields = head.fields
        length = fields.length
        self._keep_alive = fields.keep_alive
        self._body = NO_BODY if length == 0 else RequestBody(length, self._rules.limits)
        return [_FIND_BACKEND]

    def _wait_for_head(self, now: float) -> list[Command]:
        part = self._pending
        if len(part) > self._rules.limits.head_bytes:
            return self._refuse(431, now)
        if part and not could_become_request(part):
            # It would wait for its end until the deadline.
            return self._refuse(400, now)
        if self.client_ended:
            return self._refuse_incomplete(now)
        if part and not self._head_begun:
            self._head_begun = True
            self.deadline = now + self._rules.timeouts.head_s
        commands: list[Command] = []
        self._resume_client(commands)
        return commands

    # Events of the lookup of the backend.

    def backend_found(self, response_fields: bytes, switch_fields: bytes, rewritten_prefix: bytes) -> Connect | None:
        """Handle the result of the lookup. Return the command to connect; None if the exchange has ended.

        ``response_fields`` are added to the response, ``switch_fields`` to a 101. ``rewritten_prefix``: see
        `prefix_rewrite`; empty where nothing is rewritten.
        """
        if self.state is not _ROUTING:
            return None
        head = self.head
        assert head is not None
        self.state = _AFTER_BACKEND_FOUND
        self._response_fields = response_fields
        self._switch_fields = switch_fields
        self._rewritten_prefix = rewritten_prefix
        self._repeatable = head.fields.length == 0 and head.method in REPEATABLE
        return _REPEATABLE if self._repeatable else Connect.ONCE

    def local_response(self, status: int, data: bytes, now: float) -> list[Command]:
        """Send a complete response of the proxy's own. A HEAD request gets only its head."""
        if self.state is not _ROUTING and self.state is not _CONNECTING:
            return []
        return self._send_local(status, data, [], now)

    def respond(self, status: int, now: float) -> list[Command]:
        """Send a response that explains ``status``."""
        return self.local_response(status, self._rendered(status), now)

    def error_format(self) -> ErrorFormat:
        """Return the format in which the client wants an error."""
        return ErrorFormat.JSON if self.head is None else error_format(self.head.fields.lines)

    def closes(self) -> bool:
        """Return whether the connection closes after the response. A body left unread is never read as a request."""
        return (
            not self._keep_alive
            or not self._body.complete
            or (self.client_ended and not self._pending)
            or self._stopping
        )

    def _rendered(self, status: int) -> bytes:
        return self._rules.render(status, self.error_format(), close=self.closes())

    # Events of the connection to the backend.

    def connected(self, reader: ResponseReader, now: float, *, reused: bool) -> list[Command]:
        """Send the request on a connection. ``reader``: of its responses; ``reused``: it has served another request."""
        if self.state is not _CONNECTING:
            return [Action.ABORT_UPSTREAM]
        self._responses = reader
        self._reused = reused
        self._upstream_responded = False
        self.upstream_paused = False
        commands: list[Command] = [_SEND_HEAD]
        if self._body.complete:
            self.state = _AFTER_CONNECTED_WITHOUT_BODY
            if self.client_ended or self.client_paused:
                self._restart_deadline(now)
            if self._reading_paused:
                self._resume_client(commands)
            return commands
        self.state = _AFTER_CONNECTED
        waiting, self._pending = self._pending, b""
        if waiting and not self._pass_body(waiting, commands, now):
            return commands
        if self.client_ended and not self._body.complete:
            self._drop_upstream(commands)
            return commands + self._refuse(400, now)
        self._restart_deadline(now)
        self._resume_client(commands)
        return commands

    def connect_failed(self, now: float, *, timed_out: bool) -> list[Command]:
        """Handle a backend that cannot be reached."""
        return self.respond(504 if timed_out else 502, now)

    def upstream_bytes(self, data: bytes, now: float) -> list[Command]:
        """Handle bytes from the backend."""
        reader = self._responses
        if reader is None:
            return []
        if self._response_head is not None:
            return self._take_body(reader, data, now)
        self._upstream_responded = True
        request = self.head
        assert request is not None
        commands: list[Command] = []
        begun_before = reader.head_begun
        to_head_request = request.method == b"HEAD"
        try:
            head = reader.read_head(data, to_head_request=to_head_request)
            while head is not None and head.status < 200 and head.status != 101:
                if not request.http_1_0:
                    # HTTP/1.0 has no interim responses.
                    commands.append(SendClient(b"".join((head.status_line, head.fields, b"\r\n\r\n"))))
                begun_before = True
                head = reader.read_head(reader.rest, to_head_request=to_head_request)
        except InvalidResponse as error:
            return self._fail(str(error), commands, now)
        if head is None:
            if not reader.head_begun or self.deadline is None:
                self._restart_deadline(now)
            return commands
        if begun_before:
            self._restart_deadline(now)
        if head.status == 101:
            return self._switch(head, reader.rest, commands, now)
        return self._start_response(reader, head, commands, now)

    def upstream_full(self) -> list[Command]:
        """Handle a backend that does not read what was sent to it."""
        self.upstream_paused = True
        commands: list[Command] = []
        if self._responses is not None:
            self._pause_client(commands)
        return commands

    def upstream_drained(self) -> list[Command]:
        """Handle a backend that reads again."""
        self.upstream_paused = False
        commands: list[Command] = []
        if self._responses is not None:
            self._resume_client(commands)
        return commands

    def upstream_lost(self, now: float, *, orderly: bool) -> list[Command]:
        """Handle the close of the backend's connection. ``orderly``: by its end, and not by an error."""
        if self._responses is None:
            return []
        self._responses = None
        response = self._response_head
        commands: list[Command] = []
        if response is not None:
            if response.length == UNTIL_CLOSE and orderly:
                self._end(self.closes(), commands, now)
            else:
                self._cut(commands)
            return commands
        if self._repeatable and self._reused and not self._upstream_responded:
            # The backend closed the free connection before the request reached it.
            self.state = TRANSITIONS[_AWAITING][Event.STALE]
            return [Connect.NEW]
        return self._send_local(502, self._rendered(502), commands, now)

    # Events of time and of the proxy.

    def deadline_passed(self, unsent_bytes: int, now: float) -> list[Command]:
        """Handle a deadline that has passed.

        ``unsent_bytes``: the bytes that both sides together have not taken yet. If their number has changed since the
        last call, a side is slow but reads, and the deadline is postponed.
        """
        commands: list[Command] = []
        if self.state is _CLOSED or self.state is _TUNNEL:
            self.deadline = None
        elif self.state is _IDLE and not self.client_paused:
            if self._pending:
                return self._refuse(408, now)
            self._close(commands, now, still_sending=False)
        elif unsent_bytes and unsent_bytes != self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self._restart_deadline(now)
        else:
            if self.state is not _IDLE and self.state is not _CLOSING:
                commands.append(Report(Incident.STALLED, 0, ""))
            reader = self._responses
            action = stall_action(
                with_backend=reader is not None,
                response_begun=self._response_head is not None,
                client_ended=self.client_ended,
                backend_reads=not self.upstream_paused,
                response_head_begun=reader is not None and reader.head_begun,
            )
            self._drop_upstream(commands)
            if action is StallAction.CUT:
                self._cut(commands)
            else:
                self._send_local(action.value, self._rendered(action.value), commands, now)
        return commands

    def stop(self, now: float) -> None:
        """Close the connection after the response, because the proxy stops.

        A request of an idle client may be in transit. It is served if it arrives soon.
        """
        self._stopping = True
        if self.state is _IDLE:
            self.deadline = now + self._rules.timeouts.first_request_s

    def cut(self) -> list[Command]:
        """End the exchange at once, because the proxy has stopped or the route was removed."""
        commands: list[Command] = []
        if self.state is not _CLOSED and self.state is not _TUNNEL:
            self._drop_upstream(commands)
            self._cut(commands)
        return commands

    # The request's body.

    def _pass_body(self, data: bytes, commands: list[Command], now: float) -> bool:
        """Send the backend the part that belongs to the body, and keep the rest. Return whether it is valid."""
        try:
            passed, taken = self._body.take(data)
        except MalformedChunks as error:
            self._drop_upstream(commands)
            if self._response_head is None:
                commands += self._refuse(400, now, str(error))
            else:
                commands.append(Report(Incident.REQUEST_REFUSED, 400, str(error)))
                self._cut(commands)
            return False
        if taken < len(data):
            self._pending = data[taken:]
        if self._body.complete:
            self.state = TRANSITIONS[self.state][Event.REQUEST_END]
        self._restart_deadline(now)
        commands.append(SendUpstream(passed))
        return True

    # The response.

    def _start_response(
        self, reader: ResponseReader, head: ResponseHead, commands: list[Command], now: float
    ) -> list[Command]:
        """Send the client the head, with the body if it is complete already."""
        request = self.head
        assert request is not None
        self._response_head = head
        fields = head.fields
        length = head.length
        if request.http_1_0:
            fields = without_chunked_framing(fields)
            if length is None:
                self._keep_alive = False
                self._ends_with_connection = True
        if length == UNTIL_CLOSE:
            self._keep_alive = False
            self._ends_with_connection = True
        closes = self.closes()
        if closes:
            # The announced close happens also if the request is complete by then.
            self._keep_alive = False
            connection = b"\r\nConnection: close\r\n\r\n"
        elif request.http_1_0:
            connection = b"\r\nConnection: keep-alive\r\n\r\n"
        else:
            connection = b"\r\n\r\n"
        if self._rewritten_prefix:
            fields = below_prefix(fields, self._rewritten_prefix, request.fields.authority)
        # Not kept until the next head: a body may be large.
        body, reader.rest = reader.rest, b""
        clean = length == len(body)
        if not clean and length == 0:
            body = b""
        elif not clean:
            self.state = TRANSITIONS[self.state][Event.RESPONSE_HEAD]
            whole = b"".join((head.status_line, fields, self._response_fields, connection))
            commands.append(StartResponse(head.status, whole))
            reader.begin_body(head, decodes_chunks=request.http_1_0)
            return commands + self._take_body(reader, body, now) if body else commands
        whole = b"".join((head.status_line, fields, self._response_fields, connection, body))
        if (
            clean
            and head.keep_alive
            and not head.announces_absent_body
            and self._body.complete
            and not self.upstream_paused
            and not self.client_paused
            and (closes or not (self._pending or self._reading_paused))
        ):
            # The shortcut for most responses, with the effect of `_release` and `_end`.
            self._responses = None
            commands.append(FinishResponse(head.status, whole))
            if closes:
                self._close(commands, now, still_sending=False)
                return commands
            self.head = None
            self.state = TRANSITIONS[self.state][_RESPONSE_END]
            self._head_begun = False
            self.deadline = now + self._rules.timeouts.idle_s
            return commands
        commands.append(StartResponse(head.status, whole))
        self._release(head, commands, clean=clean)
        self._end(closes, commands, now)
        return commands

    def _take_body(self, reader: ResponseReader, data: bytes, now: float) -> list[Command]:
        try:
            passed = reader.read_body(data)
        except MalformedChunks as error:
            return self._fail(str(error), [], now)
        if self.deadline is not None:
            self._restart_deadline(now)
        commands: list[Command] = [SendClient(passed)] if passed else []
        if reader.done:
            assert self._response_head is not None
            self._release(self._response_head, commands, clean=reader.clean)
            self._end(self.closes(), commands, now)
        return commands

    def _switch(self, head: ResponseHead, early: bytes, commands: list[Command], now: float) -> list[Command]:
        """Begin a tunnel with the 101 of the backend, if the client has requested an upgrade."""
        request = self.head
        assert request is not None
        if request.fields.upgrade is None:
            return self._fail("101 without a request for an upgrade", commands, now)
        upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: " + (head.upgrade or b"")
        fields = head.fields
        if self._rewritten_prefix:
            fields = below_prefix(fields, self._rewritten_prefix, request.fields.authority)
        waiting, self._pending = self._pending, b""
        self.state = TRANSITIONS[self.state][Event.UPGRADED]
        self.deadline = None
        self._responses = None
        if not self.client_ended and not self.upstream_paused:
            self._resume_client(commands)
        to_client = b"".join((head.status_line, fields, self._switch_fields, upgrade, b"\r\n\r\n", early))
        commands.append(StartTunnel(to_client, waiting))
        return commands

    def _release(self, head: ResponseHead, commands: list[Command], *, clean: bool) -> None:
        """Give the connection to the backend back, unless bytes are left on it in either direction."""
        self._responses = None
        if not clean or not head.keep_alive or not self._body.complete or self.upstream_paused:
            # Bytes after the end belong to no response: they are dropped, and the connection is not used again.
            commands.append(Action.ABORT_UPSTREAM)
            return
        if self.client_paused:
            # The next client must not wait until this one reads.
            commands.append(Action.RESUME_UPSTREAM)
        # If a body comes after all, it must not be the beginning of another client's response.
        commands.append(Action.KEEP_UPSTREAM if head.announces_absent_body else Action.POOL_UPSTREAM)

    def _end(self, closes: bool, commands: list[Command], now: float) -> None:
        """End the exchange, and begin with the next request unless the connection ``closes``."""
        if closes:
            self._close(commands, now, still_sending=not self._body.complete)
            return
        self.state = TRANSITIONS[self.state][_RESPONSE_END]
        self.head = None
        self._head_begun = False
        self.deadline = now + self._rules.timeouts.idle_s
        commands.append(Action.END)
        if self._pending:
            commands.append(Action.READ_NEXT)
        elif self._reading_paused and not self.client_paused:
            self._resume_client(commands)

    # Failures.

    def _send_local(self, status: int, data: bytes, commands: list[Command], now: float) -> list[Command]:
        assert self.head is not None
        if self.head.method == b"HEAD":
            data = data[: data.index(b"\r\n\r\n") + 4]
        commands.append(StartResponse(status, data))
        self._end(self.closes(), commands, now)
        return commands

    def _refuse(self, status: int, now: float, reason: str = "") -> list[Command]:
        """Refuse a request that is malformed or incomplete, and close."""
        commands: list[Command] = []
        if reason:
            commands.append(Report(Incident.REQUEST_REFUSED, status, reason))
        commands.append(StartResponse(status, self._rules.render(status, ErrorFormat.JSON, close=True)))
        self._close(commands, now, still_sending=True)
        return commands

    def _refuse_incomplete(self, now: float) -> list[Command]:
        """Refuse the incomplete request of a client that has ended its direction, unless its response has begun."""
        if self.state is State.EARLY or (self.state is _IDLE and not self._pending):
            return self._close_now(now)
        commands: list[Command] = []
        self._drop_upstream(commands)
        return commands + self._refuse(400, now)

    def _fail(self, reason: str, commands: list[Command], now: float) -> list[Command]:
        """Handle a response that is not HTTP."""
        commands.append(Report(Incident.RESPONSE_INVALID, 0, reason))
        self._drop_upstream(commands)
        if self._response_head is None:
            return self._send_local(502, self._rendered(502), commands, now)
        self._cut(commands)
        return commands

    def _cut(self, commands: list[Command]) -> None:
        """Close the client's connection at once. A response that has begun stays visibly incomplete."""
        self.state = TRANSITIONS[self.state][_CUT]
        self.deadline = None
        commands.append(Action.RESET if self._ends_with_connection else Action.ABORT)

    def _close_now(self, now: float) -> list[Command]:
        commands: list[Command] = []
        self._drop_upstream(commands)
        self._close(commands, now, still_sending=False)
        return commands

    def _close(self, commands: list[Command], now: float, *, still_sending: bool) -> None:
        """Read no further request, and close when everything is written.

        A connection that is closed while bytes are unread is reset, and the reset may overtake the response. So one
        whose client is still sending is closed in our direction alone at first (RFC 9112, section 9.6).
        """
        self.state = TRANSITIONS[self.state][_LAST_RESPONSE_END]
        self._pending = b""
        self._lingers = still_sending and not self.client_ended and self._can_half_close
        if self._lingers:
            self._resume_client(commands)
        commands.append(_LINGER if self._lingers else _CLOSE)
        timeouts = self._rules.timeouts
        self.deadline = now + (timeouts.linger_s if self._lingers else timeouts.closing_s)

    def _drop_upstream(self, commands: list[Command]) -> None:
        if self._responses is not None:
            self._responses = None
            commands.append(Action.ABORT_UPSTREAM)

    def _pause_client(self, commands: list[Command]) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            commands.append(Action.PAUSE_CLIENT)

    def _resume_client(self, commands: list[Command]) -> None:
        if self._reading_paused:
            self._reading_paused = False
            commands.append(Action.RESUME_CLIENT)

    def _restart_deadline(self, now: float) -> None:
        """Restart the timeout of the state: bytes were transferred, or the exchange waits for something else now."""
        if self.state is _IDLE and self._head_begun and not self.client_paused:
            # The deadline is that of a head.
            return
        responses = self._responses
        timeout_s = self._rules.timeouts.timeout_s(
            self.state,
            lingers=self._lingers,
            client_paused=self.client_paused,
            client_ended=self.client_ended,
            sends_body=responses is not None and not self._body.complete,
            response_head_begun=responses is not None and responses.head_begun,
        )
        self.deadline = None if timeout_s is None else now + timeout_s
