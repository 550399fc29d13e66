"""``/ctrl/c/{cluster}/proxy-socket``: where tokens lead, which backends are in use, which are gone.

Rule: page 3, "Proxy socket".
"""

from __future__ import annotations

from functools import partial

import structlog
from aiohttp import web
from msgspec import UNSET

from plane.controller.api.endpoints import Endpoint
from plane.controller.context import Context
from plane.controller.nodes.acme_requests import answer_certificate_request
from plane.controller.nodes.deferred_replies import Replies
from plane.controller.nodes.route_lookups import RouteLookups
from plane.controller.nodes.session import serve_node
from plane.database.event_bus import Subscription
from plane.database.nodes import Registration
from plane.decisions.access import Role
from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.handshake import Extension
from plane.protocol.names import NodeKind
from plane.protocol.notifications import EventKind, ended_backend
from plane.protocol.proxy_messages import (
    BackendRemoved,
    MessageFromProxy,
    MessageToProxy,
    RouteInfoRequest,
    TokensRevoked,
)
from plane.tasks import run_together
from plane.transport.node_socket import NodeSocket

__all__ = ["PROXY_SOCKET_ENDPOINTS"]

ProxySocket = NodeSocket[MessageFromProxy, MessageToProxy]

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
    """The endpoint."""
    return await serve_node(request, NodeKind.PROXY, MessageFromProxy, _serve)


async def _serve(context: Context, socket: ProxySocket, registration: Registration) -> None:
    lookups = RouteLookups(context, socket)
    replies = Replies(socket)
    with (
        context.bus.subscribe(EventKind.BACKEND_STATE) as states,
        context.bus.subscribe(EventKind.TOKENS_REVOKED) as revocations,
    ):
        await run_together(
            _hear(context, socket, registration, lookups, replies),
            replies.run(),
            _tell_removals(socket, states),
            _tell_revocations(socket, revocations, lookups),
        )


async def _hear(
    context: Context, socket: ProxySocket, registration: Registration, lookups: RouteLookups, replies: Replies
) -> None:
    try:
        async for message in socket.messages():
            match message.content:
                case RouteInfoRequest(token):
                    lookups.start(token)
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
        await lookups.end()


def _if_gone(backend_id: str, alive: bool) -> MessageToProxy | None:
    return None if alive else MessageToProxy(backend_removed=BackendRemoved(backend_id))


async def _tell_removals(socket: ProxySocket, states: Subscription) -> None:
    async for event in states:
        if (backend := ended_backend(event)) is not None:
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(backend)))


async def _tell_revocations(socket: ProxySocket, revocations: Subscription, lookups: RouteLookups) -> None:
    understood = socket.peer.understands(Extension.REVOCATION)
    async for event in revocations:
        try:
            revoked = codec.convert(event.payload, TokensRevoked)
        except MessageError as error:
            log.warning("revocation not understood", backend=event.key, error=str(error))
            continue
        lookups.revoke(revoked.tokens)
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
        role=Role.NODE,
        is_socket=True,
    ),
)
