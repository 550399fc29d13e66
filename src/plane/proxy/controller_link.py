"""The proxy's side of its connection to a controller: sends messages, and passes received ones to their handler.

Routes, backends and tokens go to a `MessageHandler`: the service of the one process that serves, or all workers.
Certificates go to the `CertificateRenewer`. `plane.proxy.server` runs the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import structlog

from plane.protocol.handshake import Extension
from plane.protocol.proxy_messages import (
    CertManagerRequest,
    CertManagerResponse,
    MessageFromProxy,
    MessageToProxy,
    RouteInfoRequest,
    RouteInfoRequests,
    RouteInfoResponses,
)
from plane.settings import ProxySettings
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed

if TYPE_CHECKING:
    from plane.proxy.certificates.renewer import CertificateRenewer

__all__ = ["ControllerLink", "MessageHandler"]

ProxySocket = NodeSocket[MessageToProxy, MessageFromProxy]

log = structlog.get_logger("plane.proxy")


class MessageHandler(Protocol):
    """Handles a controller's messages about routes, backends and tokens."""

    def connected(self) -> None:
        """A connection was made."""

    def disconnected(self) -> None:
        """The connection ended."""

    def receive(self, message: MessageToProxy) -> None:
        """Handle a message."""


class ControllerLink:
    """The connection of one proxy, and the sending of messages on it."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        self._socket: ProxySocket | None = None

    async def send(self, message: MessageFromProxy) -> bool:
        """Send a message. Return False without a connection."""
        return await self._send_all([message])

    async def request_routes(self, tokens: Sequence[str]) -> bool:
        """Request the routes of tokens. Return False without a connection."""
        if len(tokens) > 1 and self._socket is not None and self._socket.peer.supports(Extension.ROUTES):
            return await self.send(MessageFromProxy(route_info_requests=RouteInfoRequests(tuple(tokens))))
        return await self._send_all([MessageFromProxy(route_info_request=RouteInfoRequest(token)) for token in tokens])

    async def _send_all(self, messages: Sequence[MessageFromProxy]) -> bool:
        if self._socket is None:
            return False
        try:
            await self._socket.send_all(messages)
        except SocketClosed as error:
            log.info("message not sent; sent again on the next connection", error=str(error))
            return False
        return True

    async def request_certificate(self, request: CertManagerRequest) -> bool:
        """Request or release the lease, or set a challenge's value. Return False without a connection."""
        return await self.send(MessageFromProxy(cert_manager_request=request))

    async def run(self, handler: MessageHandler, renewer: CertificateRenewer | None) -> None:
        """Keep the proxy connected, until cancelled."""

        async def session(socket: ProxySocket) -> None:
            self._socket = socket
            try:
                handler.connected()
                if renewer is not None:
                    renewer.connected()
                async for message in socket.messages():
                    match message.content:
                        case CertManagerResponse() as response:
                            if renewer is not None:
                                renewer.receive(response)
                        case RouteInfoResponses(responses):
                            for each in responses:
                                handler.receive(MessageToProxy(route_info_response=each))
                        case _:
                            handler.receive(message)
            finally:
                self._socket = None
                handler.disconnected()
                if renewer is not None:
                    renewer.disconnected()

        connector: NodeConnector[MessageToProxy, MessageFromProxy] = NodeConnector(
            self._settings.controller_url,
            f"/ctrl/c/{self._settings.cluster}/proxy-socket",
            self._settings.name,
            MessageToProxy,
            session,
            (Extension.REVOCATION, Extension.ROUTES),
        )
        await connector.run()
