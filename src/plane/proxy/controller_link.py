"""The proxy's side of its connection to a controller, present or not: what is asked on it, and who hears the answers.

`running` keeps it connected. Routes and use are the matter of a `Hearer`: of the one process that serves, or of all
workers; certificates are that of the `CertKeeper`.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from plane.protocol.handshake import Extension
from plane.protocol.proxy_messages import (
    CertManagerRequest,
    CertManagerResponse,
    MessageFromProxy,
    MessageToProxy,
)
from plane.proxy.certificates.renewer import CertKeeper
from plane.settings import ProxySettings
from plane.transport.node_socket import NodeConnector, NodeSocket, SocketClosed

__all__ = ["ControllerLink", "Hearer"]

ProxySocket = NodeSocket[MessageToProxy, MessageFromProxy]

log = structlog.get_logger("plane.proxy")


class Hearer(Protocol):
    """Whom a controller's messages are for."""

    def connected(self) -> None:
        """There is a new connection."""

    def disconnected(self) -> None:
        """There is none any more."""

    def hear(self, message: MessageToProxy) -> None:
        """A message about routes, backends or tokens."""


class ControllerLink:
    """The connection. ``hearer`` and ``cert_keeper`` are set before `connector` runs."""

    def __init__(self, settings: ProxySettings) -> None:
        self._socket: ProxySocket | None = None
        self.hearer: Hearer
        self.cert_keeper: CertKeeper | None = None
        self.connector: NodeConnector[MessageToProxy, MessageFromProxy] = NodeConnector(
            settings.controller_url,
            f"/ctrl/c/{settings.cluster}/proxy-socket",
            settings.name,
            MessageToProxy,
            self._session,
            (Extension.REVOCATION,),
        )

    async def say(self, message: MessageFromProxy) -> bool:
        """Tell the controller. False: there is no connection."""
        if self._socket is None:
            return False
        try:
            await self._socket.send(message)
        except SocketClosed as error:
            log.info("not sent; it is sent again on the next connection", error=str(error))
            return False
        return True

    async def ask_about_certificate(self, request: CertManagerRequest) -> bool:
        """Ask for the lease, set a challenge's value, or give the lease back. False: it could not be sent."""
        return await self.say(MessageFromProxy(cert_manager_request=request))

    async def _session(self, socket: ProxySocket) -> None:
        """Serve one connection to its end."""
        self._socket = socket
        try:
            self.hearer.connected()
            if self.cert_keeper is not None:
                self.cert_keeper.connected()
            async for message in socket.messages():
                match message.content:
                    case CertManagerResponse() as answer:
                        if self.cert_keeper is not None:
                            self.cert_keeper.answered(answer)
                    case _:
                        self.hearer.hear(message)
        finally:
            self._socket = None
            self.hearer.disconnected()
            if self.cert_keeper is not None:
                self.cert_keeper.disconnected()
