"""The steps that events of an exchange share: deadlines, backpressure, the request's body, ends, own responses.

`exchange_upstream` and `exchange` decide by their events which steps are taken. A step adds its commands to a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from plane.decisions.http.chunks import MalformedChunks
from plane.decisions.http.error_format import ErrorFormat, error_format
from plane.decisions.http.exchange_commands import (
    Action,
    Command,
    Incident,
    Report,
    SendUpstream,
    StartResponse,
)
from plane.decisions.http.exchange_states import TRANSITIONS, Event, State
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.request_body import NO_BODY
from plane.decisions.http.request_head import (
    RequestHead,
    RequestReader,
)
from plane.decisions.http.response_head import ResponseHead
from plane.decisions.http.response_reader import ResponseReader

__all__ = ["ExchangeRules", "ExchangeSteps", "Render"]

# Members of enumerations on the path of every request. In Python 3.11 the access to a member takes 70 ns to 90 ns, a
# transition takes 30 ns.
_IDLE: Final = State.IDLE
_CLOSE: Final = Action.CLOSE
_LINGER: Final = Action.LINGER
_RESPONSE_END: Final = Event.RESPONSE_END
_LAST_RESPONSE_END: Final = Event.LAST_RESPONSE_END
_CUT: Final = Event.CUT


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


class ExchangeSteps:
    """What is known of the exchanges of one client connection, and the steps that change it.

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

    # Deadlines and backpressure.

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

    def _pause_client(self, commands: list[Command]) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            commands.append(Action.PAUSE_CLIENT)

    def _resume_client(self, commands: list[Command]) -> None:
        if self._reading_paused:
            self._reading_paused = False
            commands.append(Action.RESUME_CLIENT)

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

    # Ends.

    def closes(self) -> bool:
        """Return whether the connection closes after the response. A body left unread is never read as a request."""
        return (
            not self._keep_alive
            or not self._body.complete
            or (self.client_ended and not self._pending)
            or self._stopping
        )

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

    def _close_now(self, now: float) -> list[Command]:
        commands: list[Command] = []
        self._drop_upstream(commands)
        self._close(commands, now, still_sending=False)
        return commands

    def _cut(self, commands: list[Command]) -> None:
        """Close the client's connection at once. A response that has begun stays visibly incomplete."""
        self.state = TRANSITIONS[self.state][_CUT]
        self.deadline = None
        commands.append(Action.RESET if self._ends_with_connection else Action.ABORT)

    def _drop_upstream(self, commands: list[Command]) -> None:
        if self._responses is not None:
            self._responses = None
            commands.append(Action.ABORT_UPSTREAM)

    # Responses of the proxy's own.

    def error_format(self) -> ErrorFormat:
        """Return the format in which the client wants an error."""
        return ErrorFormat.JSON if self.head is None else error_format(self.head.fields.lines)

    def _rendered(self, status: int) -> bytes:
        return self._rules.render(status, self.error_format(), close=self.closes())

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
