"""The controller's side of every node socket: handshake, registration, and deregistration.

`nodes.drone`, `nodes.proxy` and `nodes.dns` serve the messages in between. Node connections are described in
``docs/reference/protocol/node-sockets.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import WSCloseCode, web
from msgspec import UNSET

from plane import timing
from plane.controller.context import CONTEXT, Context
from plane.database import nodes
from plane.database.event_bus import Overflowed
from plane.database.nodes import Registration
from plane.database.pool import DatabaseUnavailable, ReferencedRowDeleted, Unstorable
from plane.protocol import codec
from plane.protocol.errors import InvalidName, MessageError
from plane.protocol.handshake import Extension, Handshake
from plane.protocol.names import ClusterName, NodeKind, parse_cluster_name, parse_node_name
from plane.transport.node_socket import MAX_MESSAGE_BYTES, NodeRefused, NodeSocket, SocketClosed
from plane.version import this_version

__all__ = ["serve_node"]

In = TypeVar("In")

log = structlog.get_logger("plane.controller")


async def serve_node(
    request: web.Request,
    kind: NodeKind,
    message: type[In],
    serve: Callable[[Context, NodeSocket[In, Any], Registration], Awaitable[None]],
    extensions: tuple[Extension, ...] = (),
    register: Callable[[Context, Handshake, ClusterName, str], Awaitable[Registration]] | None = None,
) -> web.StreamResponse:
    """Exchange handshakes with a node, register it, and call ``serve`` until the connection ends.

    Args:
        request: of the upgrade. The path of a DNS server has no cluster, since it belongs to none.
        kind: required of the node's name.
        message: type of the node's messages.
        serve: serves the connection.
        extensions: to Plane 0.5.5 that this controller understands from such a node.
        register: stores the node, given its cluster and address, where the default does not suffice; may raise
            `NodeRefused`.

    Raises:
        InvalidClusterName: the request is refused before the upgrade.
    """
    named = request.match_info.get("cluster")
    cluster = None if named is None else parse_cluster_name(named)
    if "upgrade" not in request.headers.get("Connection", "").lower():
        return web.Response(status=400, text="Connection header did not include 'upgrade'")
    context = request.app[CONTEXT]
    ws = web.WebSocketResponse(
        heartbeat=timing.NODE_PING_INTERVAL_S,
        max_msg_size=MAX_MESSAGE_BYTES,
        timeout=timing.NODE_SEND_TIMEOUT_S,
    )
    await ws.prepare(request)
    handshake = await _handshake(ws, context.settings.name, kind, extensions)
    if handshake is None:
        return ws
    socket: NodeSocket[In, Any] = NodeSocket(ws, handshake, message)
    try:
        await _register_and_serve(context, socket, kind, cluster, request.remote or "127.0.0.1", serve, register)
    except NodeRefused as error:
        log.warning("node refused", node=handshake.name, cluster=cluster, reason=str(error), ip=request.remote)
        await socket.refuse(str(error))
    except (DatabaseUnavailable, Overflowed, ReferencedRowDeleted, SocketClosed, Unstorable) as error:
        # The node reconnects, to this controller or another, and receives everything again.
        log.warning("closing a node's connection", node=handshake.name, error=str(error))
        await socket.close()
    return ws


async def _register_and_serve(
    context: Context,
    socket: NodeSocket[In, Any],
    kind: NodeKind,
    cluster: ClusterName | None,
    ip: str,
    serve: Callable[[Context, NodeSocket[In, Any], Registration], Awaitable[None]],
    register: Callable[[Context, Handshake, ClusterName, str], Awaitable[Registration]] | None,
) -> None:
    name, version = socket.peer.name, socket.peer.version
    async with context.nodes.registration_lock(cluster, name):
        if register is not None and cluster is not None:
            registration = await register(context, socket.peer, cluster, ip)
        else:
            registration = await nodes.register(context.db, kind, cluster, name, version, context.settings.name, ip)
        log.info("node connected", node=name, cluster=cluster, version=version.version)
        context.nodes.add(registration.node_id, kind, socket)
    try:
        await serve(context, socket, registration)
    finally:
        context.nodes.remove(registration.node_id, socket)
        log.info("node disconnected", node=name, cluster=cluster)
        await asyncio.shield(nodes.disconnect(context.db, registration, context.settings.name))


async def _handshake(
    ws: web.WebSocketResponse, controller: str, kind: NodeKind, extensions: tuple[Extension, ...]
) -> Handshake | None:
    """Exchange handshakes and return the node's; None after closing the socket if it sent no valid one."""
    mine = Handshake(version=this_version(), name=controller, extensions=extensions or UNSET)
    try:
        async with asyncio.timeout(timing.NODE_HANDSHAKE_TIMEOUT_S):
            theirs = codec.decode(await ws.receive_str(), Handshake)
            named_kind, _ = parse_node_name(theirs.name)
            if named_kind is not kind:
                raise InvalidName(theirs.name, f"{theirs.name!r} is the name of a {named_kind}, not of a {kind}")
            await ws.send_str(codec.encode(mine).decode())
    except (TypeError, TimeoutError, ConnectionError):
        log.warning("node sent no handshake", kind=str(kind))
        await ws.close(code=WSCloseCode.POLICY_VIOLATION)
        return None
    except (MessageError, InvalidName) as error:
        log.warning("node refused", kind=str(kind), error=str(error))
        await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:120])
        return None
    if theirs.version != mine.version:
        log.info("node runs another version", node=theirs.name, version=theirs.version.version)
    return theirs
