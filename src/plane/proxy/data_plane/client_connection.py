"""A browser's connection: reads requests one after the other, finds their backends, passes the answers back.

One exchange at a time; what comes early waits, and reading stops when that is much. What a request means is decided in
`plane.decisions`; `dispatch` finds its backend, and `upstream` reads the answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog

from plane.decisions.http.chunks import MalformedChunks
from plane.decisions.http.error_format import AnswerForm, answer_form
from plane.decisions.http.proxy_protocol import ProxyHeader
from plane.decisions.http.request_body import NO_BODY, RequestBody
from plane.decisions.http.request_head import REPEATABLE, Refused, RequestHead, could_become_request
from plane.decisions.http.response_head import UNTIL_CLOSE, AnswerHead, without_chunked_framing
from plane.decisions.http.stall_timeout import Standstill, standstill
from plane.decisions.http.trusted_proxies import believed_host, direct_visitor, plain_address, visitor_behind
from plane.decisions.http.tunnel_timeout import TunnelSide
from plane.decisions.routing.prefix_rewrite import below_prefix
from plane.decisions.routing.rewrite import Route, origin_form
from plane.proxy.data_plane import limits
from plane.proxy.data_plane.client_transport import ClientTransport
from plane.proxy.data_plane.dispatch import connect_anew, find_backend
from plane.proxy.data_plane.send_queue import unsent_bytes
from plane.proxy.data_plane.upstream import UpstreamConnection
from plane.proxy.listeners.entry_point import EntryPoint

if TYPE_CHECKING:
    from plane.proxy.service import ProxyService

__all__ = ["ClientConnection"]

_NOBODY = direct_visitor("unknown", over_tls=False)

log = structlog.get_logger("plane.proxy")


class ClientConnection(ClientTransport):
    """One connection from a client.

    Attributes:
        deadline: when it is closed if nothing changes (monotonic; None: not limited). See `ProxyService.sweep`.
        entrance: by what it came in, and what is done with its requests.
        visitor: the client of the request that is being served, or of the connection before the first.
        task: finds the backend of the request that is being served; None when nothing is waited for.
        busy: whether a request is being served.
        kept_upstream: a free connection that no other client may use.
        writing_paused: the client reads more slowly than its answers come. No further request is begun then.
    """

    __slots__ = (
        "_answer_begun",
        "_answer_fields",
        "_body",
        "_ends_with_connection",
        "_eof",
        "_head",
        "_head_begun",
        "_keep_alive",
        "_out",
        "_peer",
        "_pending",
        "_proxy_header",
        "_redirects_to_tls",
        "_rewritten_prefix",
        "_route",
        "_service",
        "_serving",
        "_speaks_for_others",
        "_unsent",
        "_upstream",
        "busy",
        "deadline",
        "entrance",
        "kept_upstream",
        "task",
        "visitor",
        "writing_paused",
    )

    def __init__(self, service: ProxyService, entrance: EntryPoint, header: ProxyHeader | None) -> None:
        """``header``: what a trusted proxy said at the start of the connection."""
        super().__init__()
        self._service = service
        self.entrance = entrance
        self._proxy_header = header
        self._peer = self.visitor = _NOBODY
        self._speaks_for_others = False
        self._redirects_to_tls = entrance is EntryPoint.TO_TLS
        self._pending = b""
        self._head: RequestHead | None = None
        self._keep_alive = True
        self._out = b""
        self._answer_fields = b""
        self._rewritten_prefix = b""
        self._route: Route | None = None
        self._upstream: UpstreamConnection | None = None
        self.kept_upstream: UpstreamConnection | None = None
        self.task: asyncio.Task[None] | None = None
        self._body = NO_BODY
        self._answer_begun = False
        # Whether only the end of the connection tells that the response is whole.
        self._ends_with_connection = False
        self._eof = False
        self._serving = False
        # What had not been taken when the deadline was over last.
        self._unsent = 0
        # Whether the deadline is that of a head.
        self._head_begun = True
        self.busy = False
        self.deadline: float | None = None
        self.writing_paused = False

    # From the client's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.Transport", transport)
        self._identify_peer(transport.get_extra_info("peername"))
        if not self._service.has_room():
            self._transport.abort()
            return
        self.deadline = self._service.now() + self._service.limits.head_s
        self._service.connections.add(self)

    def _identify_peer(self, peername: tuple[str, int] | None) -> None:
        """Tell who sends the requests: the peer, or the client that a trusted proxy named at the start."""
        address = peername[0] if peername else "unknown"
        over_tls = self.entrance is EntryPoint.TLS
        trusted, header = self._service.trusted_proxies, self._proxy_header
        if header is not None:
            address, over_tls = header.client or address, over_tls or header.over_tls
        if trusted:
            address = plain_address(address) or address
            # A load balancer that does not name its client passes on the bytes of a stranger.
            named = header is None or header.client is not None
            self._speaks_for_others = named and address in trusted
        self._peer = self.visitor = direct_visitor(address, over_tls=over_tls)
        self._choose_entrance()

    def _believe(self, head: RequestHead) -> None:
        """Take what the peer, a trusted proxy, says of the client of a request."""
        self.visitor = visitor_behind(self._peer, head.fields.claims, self._service.trusted_proxies)
        if self.visitor.host:
            claimed = self._service.names.canonical(self.visitor.host)
            if believed_host(head.fields.host, claimed, self._service.cluster) is claimed:
                head.fields = replace(head.fields, host=claimed, authority=self.visitor.host)
        self._choose_entrance()

    def _choose_entrance(self) -> None:
        """Serve here what came by TLS to a trusted proxy: a redirect would only lead to the same place."""
        if self._redirects_to_tls:
            self.entrance = EntryPoint.HTTP if self.visitor.over_tls else EntryPoint.TO_TLS

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        if self.busy and not self._pending and not self._body.complete and self._upstream is not None:
            data = self._pass_body(data)
            if not data:
                return
        self._pending = self._pending + data if self._pending else data
        if not self.busy and not self.writing_paused:
            self._serve()
        elif len(self._pending) > limits.PENDING_LIMIT_BYTES:
            self._pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; what it has asked for is still answered."""
        self._eof = True
        if self.lingering:
            return False
        self._bytes_got_on()
        if self.entrance is EntryPoint.TLS:
            # TLS has no half-closed connections: its end is the end.
            return False
        if self.busy:
            if self._body.complete or self._upstream is None or self._pending:
                return True
        elif self.writing_paused or not self._pending:
            return self.writing_paused and bool(self._pending)
        # The request will never be whole.
        self._refuse_incomplete()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._service.connections.discard(self)
        self._transport = None
        if self.task is not None:
            self.task.cancel()
        upstream, self._upstream = self._upstream, None
        for connection in (upstream, self.kept_upstream):
            if connection is not None:
                connection.abort()
        self._end_use()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._bytes_got_on()
        if self._upstream is not None and self._upstream.transport is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._bytes_got_on()
        if self._upstream is not None and self._upstream.transport is not None:
            self._upstream.transport.resume_reading()
        elif not self.busy:
            self._serve()

    # One request.

    def _serve(self) -> None:
        """Begin with what waits; one request after the other, for as long as they are answered without a backend."""
        if self._serving:
            # An answer of the proxy's own, given in the loop below.
            return
        self._serving = True
        try:
            while self._pending and not self.busy and not self.writing_paused and self._next_request():
                pass
        finally:
            self._serving = False
        if not self.busy and not self.writing_paused:
            if self._eof:
                # What is left is no whole request, and never will be.
                self._refuse_incomplete()
            else:
                self._resume_reading()

    def _next_request(self) -> bool:
        """Begin with the request at the start of what waits. False if its head is not complete."""
        data = self._pending
        # One empty line before a request is allowed (RFC 9112, section 2.2).
        if data.startswith(b"\r\n"):
            data = data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._pending = data
            if len(data) > self._service.http_limits.head_bytes:
                self.refuse(431)
            elif data and not could_become_request(data):
                # It would wait for its end until the deadline.
                self.refuse(400)
            elif data and not self._head_begun:
                self._head_begun = True
                self.deadline = self._service.now() + self._service.limits.head_s
            return False
        self._pending = data[end + 4 :]
        try:
            head = self._service.reader.read(data[:end])
            target = origin_form(head)
        except Refused as refused:
            log.info("request refused", status=refused.status, reason=str(refused), client=self.visitor.address)
            self.refuse(refused.status)
            return True
        self.busy = True
        self.deadline = None
        if self._speaks_for_others:
            self._believe(head)
        self._head = head
        self._answer_begun = False
        length = head.fields.length
        self._keep_alive = head.fields.keep_alive
        self._body = NO_BODY if length == 0 else RequestBody(length, self._service.http_limits)
        find_backend(self, self._service, head, target)
        return True

    def use(self, route: Route, out: bytes, answer_fields: bytes, rewritten_prefix: bytes) -> None:
        """The request leads to ``route``, whose backend gets ``out`` as its head; the client gets ``answer_fields``.

        ``rewritten_prefix``: see `plane.decisions.routing.prefix_rewrite`; empty where nothing is rewritten.
        """
        self._route = route
        self._out = out
        self._answer_fields = answer_fields
        self._rewritten_prefix = rewritten_prefix
        self._service.keeper.began(route.backend_id)

    def take_upstream(self, route: Route, *, repeatable: bool) -> UpstreamConnection | None:
        """Return `kept_upstream`, if there is one that can serve a request to ``route``; otherwise close it.

        ``repeatable``: as for `UpstreamPool.take`.
        """
        upstream, self.kept_upstream = self.kept_upstream, None
        if upstream is None:
            return None
        now = self._service.now()
        assert upstream.last_head is not None
        fresh = now - upstream.freed_at < upstream.last_head.reuse_s if repeatable else upstream.may_serve_once(now)
        if upstream.closed or not fresh or upstream.route.backend_id != route.backend_id:
            upstream.abort()
            return None
        upstream.reused = True
        return upstream

    def begin(self, upstream: UpstreamConnection) -> None:
        """Send the request by ``upstream``, which is free."""
        if self._transport is None:
            upstream.abort()
            return
        assert self._head is not None
        self._upstream = upstream
        upstream.begin(self, self._out, is_head_request=self._head.method == b"HEAD")
        if self._pending and not self._body.complete:
            waiting, self._pending = self._pending, b""
            self._pending = self._pass_body(waiting)
            if self._upstream is None:
                # What came is no body, and has been refused.
                return
        if self._eof and not self._body.complete:
            self._drop_upstream()
            self.refuse(400)
            return
        self._bytes_got_on()
        if not upstream.writing_paused:
            self._resume_reading()

    def _pass_body(self, data: bytes) -> bytes:
        """Send the backend what belongs to the request's body; returns the rest."""
        upstream = self._upstream
        assert upstream is not None
        assert upstream.transport is not None
        try:
            passed, taken = self._body.take(data)
        except MalformedChunks as error:
            log.info("request refused", status=400, reason=str(error), client=self.visitor.address)
            self._drop_upstream()
            if self._answer_begun:
                self._abort()
            else:
                self.refuse(400)
            return b""
        self._bytes_got_on()
        upstream.transport.write(passed)
        return b"" if taken == len(data) else data[taken:]

    def request_is_complete(self) -> bool:
        """Whether the whole body has been passed on."""
        return self._body.complete

    # From the backend's connection.

    def knows_chunks(self) -> bool:
        """Return whether the client can read a chunked body. One of HTTP/1.0 gets the data in it."""
        return self._head is not None and not self._head.http_1_0

    def interim(self, head: AnswerHead) -> None:
        """An answer before the answer (1xx); HTTP/1.0 has none."""
        assert self._head is not None
        if not self._head.http_1_0:
            self._write(b"".join((head.status_line, head.fields, b"\r\n\r\n")))

    def answer_begins(self, head: AnswerHead, body: bytes) -> None:
        """The answer's head, and its body if that is whole already."""
        request = self._head
        assert request is not None
        self._answer_begun = True
        self._service.answered[head.status // 100] += 1
        fields = head.fields
        if request.http_1_0:
            fields = without_chunked_framing(fields)
        if head.length == UNTIL_CLOSE or (head.length is None and request.http_1_0):
            self._keep_alive = False
            self._ends_with_connection = True
        if self.must_close():
            # What is announced is done, also if the request is whole by then.
            self._keep_alive = False
            connection = b"\r\nConnection: close\r\n\r\n"
        elif request.http_1_0:
            connection = b"\r\nConnection: keep-alive\r\n\r\n"
        else:
            connection = b"\r\n\r\n"
        if self._rewritten_prefix:
            fields = below_prefix(fields, self._rewritten_prefix, request.fields.authority)
        self._write(b"".join((head.status_line, fields, self._answer_fields, connection, body)))

    def answer_body(self, data: bytes) -> None:
        """A part of the answer's body, framing included."""
        if self.deadline is not None:
            self._bytes_got_on()
        self._write(data)

    def answer_ends(self) -> None:
        """The answer is complete."""
        self._upstream = None
        close = self.must_close()
        self._end_use()
        if close:
            self._close(still_sending=not self._body.complete)
            return
        self._head = None
        self.busy = False
        self._head_begun = False
        self.deadline = self._service.now() + self._service.limits.idle_s
        if self._pending:
            self._serve()
        elif not self.writing_paused:
            self._resume_reading()

    def backend_failed(self, *, answered: bool) -> None:
        """The backend's connection broke. An answer that has begun stays visibly cut."""
        self._drop_upstream()
        if answered or self._answer_begun:
            self._end_use()
            if self._ends_with_connection:
                # A regular end would say that the body is whole.
                self._reset_on_close()
            self._abort()
        else:
            self.answer_status(502)

    def asked_for_upgrade(self) -> bool:
        """Whether a 101 is what the client wants."""
        return self._head is not None and self._head.fields.upgrade is not None

    def tunnel(self, head: AnswerHead, early: bytes, upstream: UpstreamConnection) -> None:
        """The backend switches protocols: from now on bytes pass both ways."""
        client, backend, route = self._transport, upstream.transport, self._route
        assert route is not None
        if client is None or backend is None:
            upstream.abort()
            return
        upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: " + (head.upgrade or b"")
        fields = head.fields
        if self._rewritten_prefix and self._head is not None:
            fields = below_prefix(fields, self._rewritten_prefix, self._head.fields.authority)
        client.write(b"".join((head.status_line, fields, route.answer_fields, upgrade, b"\r\n\r\n", early)))
        if self._pending:
            backend.write(self._pending)
            self._pending = b""
        self._upstream = None
        self._route = None
        self._service.connections.discard(self)
        tunnel = self._service.tunnels.begin(client, backend, route)
        if self.writing_paused:
            tunnel.side_full(TunnelSide.CLIENT)
        if self._eof:
            if not tunnel.side_ended(TunnelSide.CLIENT):
                tunnel.abort()
        elif not upstream.writing_paused:
            self._resume_reading()
        if upstream.writing_paused:
            tunnel.side_full(TunnelSide.BACKEND)

    def may_retry(self) -> bool:
        """Whether the request may be sent again on another connection: it did nothing, and is at hand whole."""
        return (
            self._head is not None
            and self._head.method in REPEATABLE
            and self._head.fields.length == 0
            and not self._answer_begun
        )

    def retry(self) -> None:
        """A pooled connection had gone stale: once more, on a new one."""
        assert self._route is not None
        self._upstream = None
        connect_anew(self, self._service, self._route)

    def pause_request(self) -> None:
        """The backend reads slowly."""
        self._pause_reading()

    def resume_request(self) -> None:
        """The backend reads again."""
        self._resume_reading()

    # Answers of the proxy's own, and the end.

    def answer_status(self, status: int) -> None:
        """An answer without a backend."""
        self.answer(self._service.answers.of_status(status, self.form(), close=self.must_close()))

    def answer(self, whole: bytes) -> None:
        """An answer without a backend, already written."""
        self._answer_begun = True
        self._service.answered[int(whole[9:10])] += 1
        if self._head is not None and self._head.method == b"HEAD":
            whole = whole[: whole.index(b"\r\n\r\n") + 4]
        self._write(whole)
        self.answer_ends()

    def refuse(self, status: int) -> None:
        """A malformed request: answer, and close."""
        self._service.answered[status // 100] += 1
        self._write(self._service.answers.of_status(status, AnswerForm.JSON, close=True))
        self._end_use()
        self._close(still_sending=True)

    def _refuse_incomplete(self) -> None:
        """The client sends no more. A request that is not whole is answered, unless its response has begun."""
        if self._answer_begun and self.busy:
            self._close()
        elif self.busy or self._pending:
            self._drop_upstream()
            self.refuse(400)
        else:
            self._close()

    def response_head_incomplete(self) -> None:
        """A part of the backend's response head has come. The rest is waited for as long as for a body."""
        if self.deadline is None:
            self._bytes_got_on()

    def response_head_complete(self) -> None:
        """The rest of it has come."""
        self._bytes_got_on()

    def expire(self) -> None:
        """The deadline is over: a request that began is told so, an idle connection just ends.

        A slow reader is given more time, as long as it takes something.
        """
        if self.busy or self.writing_paused:
            upstream = self._upstream
            unsent = unsent_bytes(self._transport) + (unsent_bytes(upstream.transport) if upstream else 0)
            if unsent and unsent != self._unsent:
                self._unsent = unsent
                self._bytes_got_on()
                return
            if self._route is not None:
                log.info("request stood still; connection cut", backend=self._route.backend_id)
            verdict = standstill(
                with_backend=upstream is not None,
                answer_begun=self._answer_begun,
                client_ended=self._eof,
                backend_reads=upstream is None or not upstream.writing_paused,
                response_head_begun=upstream is not None and upstream.response_head_begun,
            )
            if verdict is Standstill.CUT:
                self._abort()
            else:
                self._drop_upstream()
                self.answer_status(verdict.value)
        elif self._pending:
            self.refuse(408)
        else:
            self._close()

    def finish(self) -> None:
        """The proxy stops: idle connections end now, others with their answer.

        Whoever has just connected has asked already, as far as they know: their first request is still served.
        """
        if self._head is None and not self.busy:
            self.deadline = self._service.now() + limits.FIRST_REQUEST_LIMIT_S
        elif not self.busy:
            self._close()

    def cut(self) -> None:
        """The proxy has stopped waiting, or the route leads nowhere any more."""
        self._abort()

    @property
    def came_by_tls(self) -> bool:
        """Whether the visitor's connection is encrypted."""
        return self.visitor.over_tls

    @property
    def route(self) -> Route | None:
        """Of the request that is being served."""
        return self._route

    def _bytes_got_on(self) -> None:
        """Something of a body, either way, got on; or what is waited for has changed: begin to wait anew."""
        settings = self._service.limits
        if self._transport is None or self._transport.is_closing() or self.lingering:
            waits_s: float | None = limits.LINGER_LIMIT_S if self.lingering else limits.CLOSING_LIMIT_S
        elif self.writing_paused or (self._upstream is not None and not self._body.complete):
            # A client that has sent its end is there, or a write will tell that it is not.
            waits_s = limits.CLOSING_LIMIT_S if self._eof else settings.body_s
        elif self.busy and self._eof:
            waits_s = limits.HALF_CLOSED_LIMIT_S
        elif self.busy:
            waits_s = settings.body_s if self._upstream is not None and self._upstream.response_head_begun else None
        elif self._head_begun:
            # The deadline is that of a head.
            return
        else:
            waits_s = settings.idle_s
        self.deadline = None if waits_s is None else self._service.now() + waits_s

    def form(self) -> AnswerForm:
        """In which form the client wants to be told."""
        return AnswerForm.JSON if self._head is None else answer_form(self._head.fields.lines)

    def must_close(self) -> bool:
        """Whether the connection ends with this answer. A body left unread is never read as a request."""
        return (
            self._head is None
            or not self._keep_alive
            or not self._body.complete
            or (self._eof and not self._pending)
            or self._service.stopping
        )

    def _end_use(self) -> None:
        route, self._route = self._route, None
        if route is not None:
            self._service.keeper.ended(route.backend_id)

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def _close(self, *, still_sending: bool = False) -> None:
        # Reads no further request.
        self.busy = True
        self._end(still_sending=still_sending and not self._eof)
        self._bytes_got_on()

    def _abort(self) -> None:
        self.busy = True
        if self._transport is not None:
            self._transport.abort()
