"""``/ctrl/dns-socket``: send DNS servers the TXT values of ACME challenges.

The messages are described in ``docs/reference/protocol/dns.md``.
"""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from plane.controller.api.endpoints import Endpoint
from plane.controller.context import Context
from plane.controller.nodes.session import serve_node
from plane.database import acme
from plane.database.nodes import Registration
from plane.decisions.access import Role
from plane.protocol.dns_messages import MessageFromDns, MessageToDns, TxtRecordResponse
from plane.protocol.names import NodeKind
from plane.transport.node_socket import NodeSocket

__all__ = ["DNS_SOCKET_ENDPOINTS"]


async def _handle(request: web.Request) -> web.StreamResponse:
    return await serve_node(request, NodeKind.ACME_DNS_SERVER, MessageFromDns, _serve)


async def _serve(context: Context, socket: NodeSocket[MessageFromDns, MessageToDns], _: Registration) -> None:
    async for message in socket.messages():
        cluster = message.content.cluster
        values = await acme.txt_values(context.db, cluster)
        response = TxtRecordResponse(cluster, values[0] if values else None, other_values=values[1:] or UNSET)
        await socket.send(MessageToDns(txt_record_response=response))


DNS_SOCKET_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/dns-socket",
        handle=_handle,
        summary="WebSocket of a DNS server",
        role=Role.NODE,
        is_socket=True,
    ),
)
