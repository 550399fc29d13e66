"""One request and its response, as a state machine: what is read, sent, reused, closed and waited for.

`Exchange` takes events and returns commands; `plane.proxy.data_plane.client_connection` reports the ones and executes
the others. It serves the requests of one client connection, one after another: a request that comes early waits, and
reading stops when much waits. The events of the client, of the lookup and of time are here, those of the backend in
`exchange_upstream`, and the steps that they share in `exchange_steps`. `exchange_states` has the states and their
transitions, `exchange_commands` what is returned, and `exchange_timeouts` how long each state may last.

Times are in seconds of a monotonic clock. `Exchange.deadline` is when `Exchange.deadline_passed` is to be called.
"""

from __future__ import annotations

from typing import Final

from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Connect,
    Incident,
    Report,
)
from plane.decisions.http.exchange_states import TRANSITIONS, Event, State
from plane.decisions.http.exchange_upstream import UpstreamEvents
from plane.decisions.http.request_body import NO_BODY, RequestBody
from plane.decisions.http.request_head import (
    REPEATABLE,
    RequestRefused,
    could_become_request,
)
from plane.decisions.http.stall_timeout import StallAction, stall_action
from plane.decisions.routing.rewrite import origin_form

__all__ = ["PENDING_LIMIT_BYTES", "Exchange"]

# Bytes of later requests that may wait while one is served.
PENDING_LIMIT_BYTES: Final = 64 * 1024

# Members of enumerations on the path of every request. In Python 3.11 the access to a member takes 70 ns to 90 ns, a
# transition takes 30 ns.
_IDLE: Final = State.IDLE
_ROUTING: Final = State.ROUTING
_CONNECTING: Final = State.CONNECTING
_STREAMING: Final = State.STREAMING
_CLOSING: Final = State.CLOSING
_CLOSED: Final = State.CLOSED
_TUNNEL: Final = State.TUNNEL
_OVER: Final = (_CLOSING, _CLOSED, _TUNNEL)
_AFTER_REQUEST_HEAD: Final = TRANSITIONS[_IDLE][Event.REQUEST_HEAD]
_AFTER_BACKEND_FOUND: Final = TRANSITIONS[_ROUTING][Event.BACKEND_FOUND]
_FIND_BACKEND: Final = Action.FIND_BACKEND
_REPEATABLE: Final = Connect.REPEATABLE
_PAUSE_UPSTREAM: Final = Action.PAUSE_UPSTREAM
_RESUME_UPSTREAM: Final = Action.RESUME_UPSTREAM
_CUT: Final = Event.CUT


class Exchange(UpstreamEvents):
    """The exchanges of one client connection, one after another. Arguments and attributes: see `ExchangeSteps`."""

    __slots__ = ()

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

    # Events of time and of the proxy.

    def connect_failed(self, now: float, *, timed_out: bool) -> list[Command]:
        """Handle a backend that cannot be reached."""
        return self.respond(504 if timed_out else 502, now)

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
