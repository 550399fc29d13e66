"""A client's connection: reports what happens on it and on its request's backend, and does what the exchange commands.

`plane.decisions.http.exchange` decides; `dispatch` finds the backend of a request and connects to it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, cast

import structlog

from plane.decisions.http.error_format import ErrorFormat
from plane.decisions.http.exchange import Exchange
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
from plane.decisions.http.proxy_protocol import ProxyHeader
from plane.decisions.http.request_head import RequestHead
from plane.decisions.http.trusted_proxies import direct_visitor, effective_host, plain_address, visitor_behind
from plane.decisions.http.tunnel_timeout import TunnelSide
from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.connection_context import ConnectionContext
from plane.proxy.data_plane.interfaces import Cancellable, Upstream
from plane.proxy.data_plane.request_span import begin_span, response_begins
from plane.proxy.data_plane.send_queue import unsent_bytes
from plane.proxy.listeners.entry_point import EntryPoint
from plane.tracing.span import Span

__all__ = ["ClientConnection"]

_UNKNOWN_VISITOR: Final = direct_visitor("unknown", over_tls=False)
# Members of enumerations on the path of every request. In Python 3.11 the access to a member takes 70 ns to 90 ns.
_TLS: Final = EntryPoint.TLS
_TO_TLS: Final = EntryPoint.TO_TLS
_FIND_BACKEND: Final = Action.FIND_BACKEND
_SEND_HEAD: Final = Action.SEND_HEAD
_CLOSE: Final = Action.CLOSE
_PAUSE_UPSTREAM: Final = Action.PAUSE_UPSTREAM
_RESUME_UPSTREAM: Final = Action.RESUME_UPSTREAM

# On, for no time: closing drops what is not sent, and resets the connection (socket(7), SO_LINGER).
_NO_LINGER: Final = struct.pack("ii", 1, 0)

log = structlog.get_logger("plane.proxy")


class ClientConnection(asyncio.Protocol):
    """One connection from a client.

    Args:
        entry_point: the kind of port that it came in by.
        header: the PROXY header of a trusted proxy at the start of the connection.

    Attributes:
        entry_point: the kind of port that its request came in by, according to trusted proxies.
        span: measures the request that is being served, if it is traced.
        visitor: the client of the request that is being served, or of the connection before the first.
    """

    __slots__ = (
        "_commands",
        "_context",
        "_exchange",
        "_head_out",
        "_kept_upstream",
        "_now",
        "_peer",
        "_proxy_header",
        "_redirects_to_tls",
        "_route",
        "_speaks_for_others",
        "_transport",
        "_upstream",
        "_waiting",
        "entry_point",
        "span",
        "visitor",
    )

    def __init__(self, context: ConnectionContext, entry_point: EntryPoint, header: ProxyHeader | None) -> None:
        self._context = context
        self._now = context.now
        self._exchange = Exchange(context.rules, can_half_close=entry_point is not _TLS)
        self.entry_point = entry_point
        self._proxy_header = header
        self._transport: asyncio.Transport | None = None
        self._peer = self.visitor = _UNKNOWN_VISITOR
        self._speaks_for_others = False
        self._redirects_to_tls = entry_point is _TO_TLS
        self._route: Route | None = None
        self._head_out = b""
        self._upstream: Upstream | None = None
        self._kept_upstream: Upstream | None = None
        self._waiting: Cancellable | None = None
        self.span: Span | None = None
        # Those that are being executed.
        self._commands: list[Command] | None = None

    # Who the client is.

    def _identify_peer(self, peername: Sequence[Any] | None) -> None:
        """Determine who sends the requests: the peer, or the client that a trusted proxy named at the start.

        ``peername``: address and port, and two more numbers with IPv6.
        """
        address: str = peername[0] if peername else "unknown"
        over_tls = self.entry_point is _TLS
        trusted, header = self._context.trusted_proxies, self._proxy_header
        if header is not None:
            address, over_tls = header.client or address, over_tls or header.over_tls
        if trusted:
            address = plain_address(address) or address
            # A load balancer that does not name its client passes on the bytes of a stranger.
            named = header is None or header.client is not None
            self._speaks_for_others = named and address in trusted
        self._peer = self.visitor = direct_visitor(address, over_tls=over_tls)
        self._choose_entry_point()

    def _believe(self, head: RequestHead) -> None:
        """Take over what the peer, a trusted proxy, says about the client of a request."""
        context = self._context
        self.visitor = visitor_behind(self._peer, head.fields.claims, context.trusted_proxies)
        if self.visitor.host:
            claimed = context.names.canonical(self.visitor.host)
            if effective_host(head.fields.host, claimed, context.cluster) is claimed:
                head.fields = replace(head.fields, host=claimed, authority=self.visitor.host)
        self._choose_entry_point()

    def _choose_entry_point(self) -> None:
        """Serve here what came by TLS to a trusted proxy: a redirect would only lead to the same place."""
        if self._redirects_to_tls:
            self.entry_point = EntryPoint.HTTP if self.visitor.over_tls else EntryPoint.TO_TLS

    # Events of the client's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)
        self._identify_peer(transport.get_extra_info("peername"))
        context = self._context
        if not context.has_room():
            self._transport.abort()
            return
        context.connections.add(self)
        self._exchange.opened(self._now(), stopping=context.stopping)

    def data_received(self, data: bytes) -> None:
        self._execute(self._exchange.client_bytes(data, self._now()))

    def eof_received(self) -> bool:
        self._execute(self._exchange.client_eof(self._now()))
        # A transport that is closing needs no second order.
        return self._transport is not None and not self._transport.is_closing()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._context.connections.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()
        commands = self._exchange.client_lost()
        if commands:
            self._execute(commands)
        if self._kept_upstream is not None:
            self._kept_upstream.abort()
            self._kept_upstream = None
        self._end_use()

    def pause_writing(self) -> None:
        self._execute(self._exchange.client_full(self._now()))

    def resume_writing(self) -> None:
        self._execute(self._exchange.client_drained(self._now()))

    # Events of the dispatch. See `Requester`.

    def error_format(self) -> ErrorFormat:
        return self._exchange.error_format()

    def closes(self) -> bool:
        return self._exchange.closes()

    def respond(self, status: int) -> None:
        self._execute(self._exchange.respond(status, self._now()))

    def respond_with(self, data: bytes) -> None:
        self._execute(self._exchange.local_response(int(data[9:12]), data, self._now()))

    def forward(self, route: Route, head_out: bytes, response_fields: bytes, rewritten_prefix: bytes) -> None:
        if self._transport is None:
            # The client disconnected while its backend was looked up.
            return
        self._route = route
        self._head_out = head_out
        if self.span is not None:
            self.span.set("plane.backend", route.backend_id)
        self._context.keepalive.use_started(route.backend_id)
        how = self._exchange.backend_found(response_fields, route.response_fields, rewritten_prefix)
        if how is not None:
            self._connect(how)

    def upstream_connected(self, upstream: Upstream, *, reused: bool) -> None:
        self._upstream = upstream
        upstream.attach(self)
        self._execute(self._exchange.connected(upstream.responses, self._now(), reused=reused))

    def connect_failed(self, *, timed_out: bool) -> None:
        self._execute(self._exchange.connect_failed(self._now(), timed_out=timed_out))

    def run(self, waiting: Coroutine[None, None, None]) -> None:
        self._waiting = asyncio.ensure_future(waiting)

    def wait_for(self, waiting: Cancellable) -> None:
        self._waiting = waiting

    # Events of the connection to the backend. See `UpstreamUser`.

    def upstream_received(self, data: bytes) -> None:
        self._execute(self._exchange.upstream_bytes(data, self._now()))

    def upstream_lost(self, *, orderly: bool) -> None:
        self._upstream = None
        self._execute(self._exchange.upstream_lost(self._now(), orderly=orderly))

    def upstream_full(self) -> None:
        self._execute(self._exchange.upstream_full())

    def upstream_drained(self) -> None:
        self._execute(self._exchange.upstream_drained())

    # Events of the proxy. See `OpenConnection`.

    @property
    def deadline(self) -> float | None:
        return self._exchange.deadline

    @property
    def route(self) -> Route | None:
        return self._route

    def expire(self) -> None:
        upstream = self._upstream
        unsent = unsent_bytes(self._transport) + (0 if upstream is None else unsent_bytes(upstream.transport))
        self._execute(self._exchange.deadline_passed(unsent, self._now()))

    def stop(self) -> None:
        self._exchange.stop(self._now())

    def cut(self) -> None:
        self._execute(self._exchange.cut())

    # Commands.

    def _execute(self, commands: list[Command]) -> None:
        """Execute commands in order. Those that result from one of them are executed after all before them."""
        if self._commands is not None:
            # This is called by a command of the loop below, which comes to these too.
            self._commands += commands
            return
        self._commands = commands
        try:
            for command in commands:
                # In the order of what costs most; `type` takes half the time of `isinstance`.
                if command is _FIND_BACKEND:
                    self._find_backend()
                elif command is _SEND_HEAD:
                    if self._upstream is not None and self._upstream.transport is not None:
                        self._upstream.transport.write(self._head_out)
                elif type(command) is SendClient:
                    if self._transport is not None:
                        self._transport.write(command.data)
                elif type(command) is FinishResponse:
                    self._finish_response(command)
                elif command is _CLOSE:
                    self._end_use()
                    if self._transport is not None:
                        self._transport.close()
                else:
                    self._execute_rare(command)
        finally:
            self._commands = None

    def _find_backend(self) -> None:
        head = self._exchange.head
        assert head is not None
        if self._speaks_for_others:
            self._believe(head)
        if self._context.tracer is not None:
            self._end_span()
            self.span = begin_span(self._context.tracer, head)
        self._context.dispatch.find_backend(self, head)

    def _finish_response(self, command: FinishResponse) -> None:
        self._start_response(command.status, command.data)
        if self._upstream is not None:
            self._upstream.release()
            self._upstream = None
        self._end_use()

    def _connect(self, how: Connect) -> None:
        assert self._route is not None
        kept, self._kept_upstream = self._kept_upstream, None
        self._context.dispatch.connect(self, self._route, how, kept)

    def _start_response(self, status: int, data: bytes) -> None:
        self._context.responses_begun[status // 100] += 1
        if self.span is not None:
            response_begins(self.span, status)
        if self._transport is not None:
            self._transport.write(data)

    def _execute_rare(self, command: Command) -> None:
        """Execute a command that is not on the path of every request."""
        if command is _PAUSE_UPSTREAM or command is _RESUME_UPSTREAM:
            # Several times per MiB of a body that its client reads slowly.
            self._act_on_upstream(command)
            return
        match command:
            case SendUpstream(data):
                if self._upstream is not None and self._upstream.transport is not None:
                    self._upstream.transport.write(data)
            case StartResponse(status, data):
                self._start_response(status, data)
            case Connect():
                self._connect(command)
            case Report():
                self._report(command)
            case StartTunnel():
                self._start_tunnel(command)
            case Action():
                self._act(command)

    def _act(self, action: Action) -> None:
        match action:
            case Action.READ_NEXT:
                self._execute(self._exchange.read_next(self._now()))
            case Action.PAUSE_CLIENT | Action.RESUME_CLIENT:
                self._act_on_client(action)
            case Action.END:
                self._end_use()
            case Action.LINGER | Action.ABORT | Action.RESET:
                self._end_use()
                self._act_on_client(action)
            case _:
                self._act_on_upstream(action)

    def _act_on_upstream(self, action: Action) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        if action is _PAUSE_UPSTREAM:
            if upstream.transport is not None:
                upstream.transport.pause_reading()
        elif action is _RESUME_UPSTREAM:
            if upstream.transport is not None:
                upstream.transport.resume_reading()
        elif action is Action.KEEP_UPSTREAM:
            self._upstream, self._kept_upstream = None, upstream
            upstream.keep()
        elif action is Action.POOL_UPSTREAM:
            self._upstream = None
            upstream.release()
        else:
            self._upstream = None
            upstream.abort()

    def _act_on_client(self, action: Action) -> None:
        transport = self._transport
        if transport is None:
            return
        match action:
            case Action.PAUSE_CLIENT:
                transport.pause_reading()
            case Action.ABORT:
                transport.abort()
            case Action.RESET:
                _reset_on_close(transport)
                transport.abort()
            case _ if transport.is_closing():
                pass
            case Action.RESUME_CLIENT:
                transport.resume_reading()
            case Action.LINGER:
                transport.write_eof()

    def _report(self, report: Report) -> None:
        route = self._route
        match report.incident:
            case Incident.REQUEST_REFUSED:
                log.info("request refused", status=report.status, reason=report.reason, client=self.visitor.address)
            case Incident.RESPONSE_INVALID if route is not None:
                log.warning("invalid HTTP response from backend", backend=route.backend_id, reason=report.reason)
            case Incident.STALLED if route is not None:
                log.info("request stalled; connection closed", backend=route.backend_id)

    def _start_tunnel(self, command: StartTunnel) -> None:
        """Hand both transports over to a tunnel."""
        client, upstream, route = self._transport, self._upstream, self._route
        assert upstream is not None
        assert route is not None
        backend = upstream.transport
        self._upstream = None
        if client is None or backend is None:
            upstream.abort()
            return
        upstream.detach_for_tunnel()
        client.write(command.to_client)
        if command.to_upstream:
            backend.write(command.to_upstream)
        # The backend is in use until the tunnel ends.
        self._route = None
        if self.span is not None:
            response_begins(self.span, 101)
            self._end_span()
        self._context.connections.discard(self)
        tunnel = self._context.tunnels.begin(client, backend, route)
        if self._exchange.client_paused:
            tunnel.side_full(TunnelSide.CLIENT)
        if self._exchange.client_ended and not tunnel.side_ended(TunnelSide.CLIENT):
            tunnel.abort()
        if upstream.writing_paused:
            tunnel.side_full(TunnelSide.BACKEND)

    def _end_use(self) -> None:
        route, self._route = self._route, None
        if route is not None:
            self._context.keepalive.use_ended(route.backend_id)
        if self.span is not None:
            self._end_span()

    def _end_span(self) -> None:
        span, self.span = self.span, None
        if span is not None:
            span.end()


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Have the client see an error, and no orderly end, when the connection is closed."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # One that is just being closed cannot be changed any more.
        with suppress(OSError, ValueError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
