"""``/ctrl/c/{cluster}/proxy-socket``: where tokens lead, which backends are in use, which are gone.

Rule: page 3, "Proxy socket".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import structlog
from aiohttp import web
from msgspec import UNSET

from plane.controller.certificate_requests import answer_certificate_request
from plane.controller.context import Context
from plane.controller.endpoints import Endpoint
from plane.controller.node_session import serve_node
from plane.controller.replies import Replies
from plane.database import backends
from plane.database.nodes import Registration
from plane.database.notifications import Overflowed, Subscription
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.decisions.access import Role
from plane.ownership import OwnedTasks, run_together
from plane.protocol import codec
from plane.protocol.backend_state import BackendStatus
from plane.protocol.errors import MessageError
from plane.protocol.handshake import Extension
from plane.protocol.names import NodeKind
from plane.protocol.notifications import EventKind, ended_backend
from plane.protocol.proxy_messages import (
    BackendRemoved,
    MessageFromProxy,
    MessageToProxy,
    RouteInfo,
    RouteInfoRequest,
    RouteInfoResponse,
    TokensRevoked,
)
from plane.repeated_warning import RepeatedWarning
from plane.timing import STARTUP_TIMEOUT_S
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["PROXY_SOCKET_ENDPOINTS"]

ProxySocket = NodeSocket[MessageFromProxy, MessageToProxy]

# Questions of one proxy that may wait for their backends to start; more are not answered, and it asks again.
WAITING_LIMIT = 10_000
# A backend that is not ready by then never will be; its termination answers the question before that.
WAIT_LIMIT_S = STARTUP_TIMEOUT_S + 60

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
    """The endpoint."""
    return await serve_node(request, NodeKind.PROXY, MessageFromProxy, _serve)


async def _serve(context: Context, socket: ProxySocket, registration: Registration) -> None:
    questions = _Questions(context, socket)
    replies = Replies(socket)
    with (
        context.bus.subscribe(EventKind.BACKEND_STATE) as states,
        context.bus.subscribe(EventKind.TOKENS_REVOKED) as revocations,
    ):
        await run_together(
            _hear(context, socket, registration, questions, replies),
            replies.run(),
            _tell_removals(socket, states),
            _tell_revocations(socket, revocations, questions),
        )


async def _hear(
    context: Context, socket: ProxySocket, registration: Registration, questions: _Questions, replies: Replies
) -> None:
    try:
        async for message in socket.messages():
            match message.content:
                case RouteInfoRequest(token):
                    questions.ask(token)
                case str(backend_id) if message.keep_alive is not UNSET:
                    await replies.expect(context.writes.keepalives.put(backend_id), partial(_if_gone, backend_id))
                case request:
                    assert registration.cluster is not None
                    answer = await answer_certificate_request(
                        context.db, registration.cluster, registration.node_id, request
                    )
                    if answer is not None:
                        await socket.send(MessageToProxy(cert_manager_response=answer))
    finally:
        await questions.end()


def _if_gone(backend_id: str, alive: bool) -> MessageToProxy | None:
    return None if alive else MessageToProxy(backend_removed=BackendRemoved(backend_id))


@dataclass(eq=False, slots=True)
class _Question:
    """Where does this token lead? ``revoked``: nowhere, whatever the database said of it a moment ago."""

    token: str
    revoked: bool = False


class _Questions:
    """What one proxy has asked and was not told yet: a task each, since a backend may take its time to start."""

    def __init__(self, context: Context, socket: ProxySocket) -> None:
        self._context = context
        self._socket = socket
        self._waiting: set[_Question] = set()
        self._too_many = RepeatedWarning(log, "proxy asks too much at once", proxy=socket.peer.name)
        self._not_answered = RepeatedWarning(log, "route question not answered", proxy=socket.peer.name)
        self._tasks = OwnedTasks(
            lambda error: log.error("route question failed", proxy=socket.peer.name, exc_info=error)
        )

    def ask(self, token: str) -> None:
        """Answer as soon as it is known where the token leads."""
        if len(self._waiting) >= WAITING_LIMIT:
            self._too_many.warn()
            return
        question = _Question(token)
        self._waiting.add(question)
        self._tasks.start(self._answer(question))

    def revoked(self, tokens: tuple[str, ...]) -> None:
        """These lead nowhere any more."""
        for question in self._waiting:
            if question.token in tokens:
                question.revoked = True

    async def end(self) -> None:
        """The connection is over."""
        await self._tasks.end()
        self._too_many.end()
        self._not_answered.end()

    async def _answer(self, question: _Question) -> None:
        """Answer a question; a failure here is not the proxy's other questions' failure: it asks again."""
        try:
            route = await _route(self._context, question.token)
            response = RouteInfoResponse(question.token, None if question.revoked else route)
            await self._socket.send(MessageToProxy(route_info_response=response))
        except (DatabaseUnavailable, Overflowed, SocketClosed) as error:
            self._not_answered.warn(error=str(error))
        finally:
            self._waiting.discard(question)


async def _route(context: Context, token: str) -> RouteInfo | None:
    """Where the token leads, once its backend is ready; None if it is unknown or expired, or its backend ends."""
    try:
        row = await backends.route(context.db, token)
    except Unstorable:
        # As text with NUL: it cannot be there.
        return None
    if row is None or row.status_number >= BackendStatus.TERMINATING.number:
        return None
    if row.route is not None:
        return row.route
    with context.bus.subscribe(EventKind.BACKEND_STATE, row.backend_id) as states:
        try:
            async with asyncio.timeout(WAIT_LIMIT_S):
                while True:
                    # Read again, also at first: it may have become ready before the subscription.
                    row = await backends.route(context.db, token)
                    if row is None or row.status_number >= BackendStatus.TERMINATING.number:
                        return None
                    if row.route is not None:
                        return row.route
                    await states.next()
        except TimeoutError:
            return None


async def _tell_removals(socket: ProxySocket, states: Subscription) -> None:
    async for event in states:
        if (backend := ended_backend(event)) is not None:
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(backend)))


async def _tell_revocations(socket: ProxySocket, revocations: Subscription, questions: _Questions) -> None:
    understood = socket.peer.understands(Extension.REVOCATION)
    async for event in revocations:
        try:
            revoked = codec.convert(event.payload, TokensRevoked)
        except MessageError as error:
            log.warning("revocation not understood", backend=event.key, error=str(error))
            continue
        questions.revoked(revoked.tokens)
        if understood:
            await socket.send(MessageToProxy(tokens_revoked=revoked))
        else:
            # An original knows this alone: it forgets every way to the backend and asks again, and what was revoked is
            # then answered with null. What is open there stays open.
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(revoked.backend)))


PROXY_SOCKET_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/c/{cluster}/proxy-socket",
        handle=_handle,
        summary="Where a proxy connects",
        role=Role.ADMIN,
        is_socket=True,
    ),
)
