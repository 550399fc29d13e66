"""``/ctrl/c/{cluster}/proxy-socket``: where tokens lead, which backends are in use, which are gone.

Rule: page 3, "Proxy socket".
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from plane.controller.context import Context
from plane.controller.node_session import serve_node
from plane.database import backends
from plane.database.nodes import Registration
from plane.database.notifications import Overflowed, Subscription
from plane.database.pool import DatabaseUnavailable
from plane.ownership import end_tasks, run_together
from plane.protocol.backend_state import BackendStatus
from plane.protocol.names import NodeKind
from plane.protocol.notifications import EventKind
from plane.protocol.proxy_messages import (
    BackendRemoved,
    MessageFromProxy,
    MessageToProxy,
    RouteInfo,
    RouteInfoRequest,
    RouteInfoResponse,
)
from plane.timing import STARTUP_TIMEOUT_S
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["handle_proxy_socket"]

ProxySocket = NodeSocket[MessageFromProxy, MessageToProxy]

# Questions of one proxy that may wait for their backends to start; more are answered with null.
WAITING_LIMIT = 10_000
# A backend that is not ready by then never will be; its termination answers the question before that.
WAIT_LIMIT_S = STARTUP_TIMEOUT_S + 60

log = structlog.get_logger("plane.controller")


async def handle_proxy_socket(request: web.Request) -> web.StreamResponse:
    """The endpoint."""
    return await serve_node(request, NodeKind.PROXY, MessageFromProxy, _serve)


async def _serve(context: Context, socket: ProxySocket, registration: Registration) -> None:
    with context.bus.subscribe(EventKind.BACKEND_STATE) as states:
        await run_together(_hear(context, socket), _tell_removals(socket, states))


async def _hear(context: Context, socket: ProxySocket) -> None:
    waiting: set[asyncio.Task[None]] = set()
    try:
        async for message in socket.messages():
            match message.content:
                case RouteInfoRequest(token):
                    if len(waiting) < WAITING_LIMIT:
                        task = asyncio.create_task(_answer_route(context, socket, token))
                        waiting.add(task)
                        task.add_done_callback(waiting.discard)
                    else:
                        log.warning("proxy asks too much at once", proxy=socket.peer.name)
                case str(backend_id):
                    if not await backends.keep_alive(context.db, backend_id):
                        await socket.send(MessageToProxy(backend_removed=BackendRemoved(backend_id)))
                case other:
                    log.warning("certificates are not served", proxy=socket.peer.name, asked=type(other).__name__)
    finally:
        await end_tasks(waiting)


async def _answer_route(context: Context, socket: ProxySocket, token: str) -> None:
    """Answer a question; a failure here is not the proxy's other questions' failure: it asks again."""
    try:
        route = await _route(context, token)
        await socket.send(MessageToProxy(route_info_response=RouteInfoResponse(token, route)))
    except (DatabaseUnavailable, Overflowed, SocketClosed) as error:
        log.warning("route question not answered", proxy=socket.peer.name, error=str(error))
    except Exception:
        # Nobody awaits this task; without this its failure would be seen only when it is collected.
        log.exception("route question failed", proxy=socket.peer.name)


async def _route(context: Context, token: str) -> RouteInfo | None:
    """Where the token leads, once its backend is ready; None if it is unknown or expired, or its backend ends."""
    row = await backends.route(context.db, token)
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
        if event.key is not None and event.payload.get("status") == BackendStatus.TERMINATED:
            await socket.send(MessageToProxy(backend_removed=BackendRemoved(event.key)))
