"""The open node sockets of one controller: one per node, all closed when the controller stops."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from plane.transport.node_socket import NodeSocket

__all__ = ["OpenSockets"]

log = structlog.get_logger("plane.controller")


class OpenSockets:
    """The open node sockets of one controller."""

    def __init__(self) -> None:
        self._by_node: dict[int, NodeSocket[Any, Any]] = {}

    async def enter(self, node_id: int, socket: NodeSocket[Any, Any]) -> None:
        """A node has connected. An older connection of the same name is closed: the newer one wins."""
        older = self._by_node.get(node_id)
        self._by_node[node_id] = socket
        if older is not None:
            log.warning("node connected again; its older connection is closed", node=socket.peer.name)
            await older.close()

    def leave(self, node_id: int, socket: NodeSocket[Any, Any]) -> None:
        """A connection has ended."""
        if self._by_node.get(node_id) is socket:
            del self._by_node[node_id]

    async def close_all(self) -> None:
        """End every connection with a code that makes nodes go to another controller at once."""
        await asyncio.gather(*(socket.close() for socket in self._by_node.values()), return_exceptions=True)
