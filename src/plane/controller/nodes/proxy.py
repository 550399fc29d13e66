"""``/ctrl/c/{cluster}/proxy-socket``: routes of tokens, keepalives of backends, removals and revocations.

The messages are described in ``docs/reference/protocol/proxy.md``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from aiohttp import web
from msgspec import UNSET

from plane.controller.api.endpoints import Endpoint
from plane.controller.context import Context
from plane.controller.nodes.acme_requests import handle_certificate_request
from plane.controller.nodes.deferred_replies import DeferredReplies
from plane.controller.nodes.route_lookups import RouteLookups
from plane.controller.nodes.session import serve_node
from plane.database import tokens
from plane.database.event_bus import Subscription
from plane.database.nodes import Registration
from plane.decisions.access import Role
from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.handshake import Extension
from plane.protocol.names import NodeKind
from plane.protocol.notifications import EventKind, terminated_backend
from plane.protocol.proxy_messages import (
    BackendRemoved,
    MessageFromProxy,
    MessageToProxy,
    RouteInfoRequest,
    RouteInfoRequests,
    TokensRevoked,
)
from plane.tasks import run_together
from plane.timing import DYNAMIC_TOKEN_LIFETIME_S
from plane.transport.node_socket import NodeSocket

__all__ = ["PROXY_SOCKET_ENDPOINTS"]

# How old the revocations are that a new connection repeats. Less than the lifetime of a token: a user's tokens that
# have expired since are older than the revocation, so the proxy can close their connections.
REVOCATIONS_REPEATED_S = DYNAMIC_TOKEN_LIFETIME_S - 600

ProxySocket = NodeSocket[MessageFromProxy, MessageToProxy]

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
    return await serve_node(request, NodeKind.PROXY, MessageFromProxy, _serve, extensions=(Extension.ROUTES,))


async def _serve(context: Context, socket: ProxySocket, registration: Registration) -> None:
    lookups = RouteLookups(context, socket)
    replies = DeferredReplies(socket)
    with (
        context.bus.subscribe(EventKind.BACKEND_STATE) as states,
        context.bus.subscribe(EventKind.TOKENS_REVOKED) as revocations,
    ):
        await run_together(
            _receive(context, socket, registration, lookups, replies),
            lookups.run(),
            replies.run(),
            _send_removals(socket, states),
            _send_revocations(context, socket, revocations, lookups),
        )


async def _receive(
    context: Context, socket: ProxySocket, registration: Registration, lookups: RouteLookups, replies: DeferredReplies
) -> None:
    try:
        async for message in socket.messages():
            match message.content:
                case RouteInfoRequest(token):
                    lookups.start(token)
                case RouteInfoRequests(wanted):
                    for each in wanted:
                        lookups.start(each)
                case str(backend_id) if message.keep_alive is not UNSET:
                    await replies.expect(
                        context.statements.keepalives.submit(backend_id), partial(_if_removed, backend_id)
                    )
                case request:
                    assert registration.cluster is not None
                    response = await handle_certificate_request(
                        context.db, registration.cluster, registration.node_id, request
                    )
                    if response is not None:
                        await socket.send(MessageToProxy(cert_manager_response=response))
    finally:
        await lookups.end()


def _if_removed(backend_id: str, alive: bool) -> MessageToProxy | None:
    return None if alive else MessageToProxy(backend_removed=BackendRemoved(backend_id))


async def _send_removals(socket: ProxySocket, states: Subscription) -> None:
    async for event in states:
        if (backend := terminated_backend(event)) is not None:
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(backend)))


async def _send_revocations(
    context: Context, socket: ProxySocket, revocations: Subscription, lookups: RouteLookups
) -> None:
    supported = socket.peer.supports(Extension.REVOCATION)
    if supported:
        # It may have been without a controller when they were announced, with connections that are still open.
        announced = await tokens.recent_revocations(context.db, REVOCATIONS_REPEATED_S)
        recent = [revoked for each in announced if (revoked := _revocation(*each)) is not None]
        await socket.send_all([MessageToProxy(tokens_revoked=revoked) for revoked in recent])
    async for event in revocations:
        revoked = _revocation(event.key, event.payload)
        if revoked is None:
            continue
        lookups.revoke(revoked.tokens)
        if supported:
            await socket.send(MessageToProxy(tokens_revoked=revoked))
        elif revoked.tokens:
            # A proxy of Plane 0.5.5 knows only this message: it forgets all routes to the backend and requests them
            # again, and the response for a revoked token is null. Its open connections stay open.
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(revoked.backend)))


def _revocation(backend: str | None, payload: Any) -> TokensRevoked | None:
    """Return what was announced; None, with a warning, if it cannot be decoded."""
    try:
        return codec.convert(payload, TokensRevoked)
    except MessageError as error:
        log.warning("revocation not decoded", backend=backend, error=str(error))
        return None


PROXY_SOCKET_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/c/{cluster}/proxy-socket",
        handle=_handle,
        summary="WebSocket of a proxy",
        role=Role.NODE,
        is_socket=True,
    ),
)
