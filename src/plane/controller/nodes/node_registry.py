"""The open node sockets of one controller: one per node, all closed when the controller stops.

Also tells which drones are connected, for what is done for all of them together.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import structlog

from plane.protocol.names import NodeKind
from plane.tasks import OwnedTasks
from plane.transport.node_socket import NodeSocket

__all__ = ["OpenSockets"]

log = structlog.get_logger("plane.controller")


class OpenSockets:
    """The open node sockets of one controller."""

    def __init__(self) -> None:
        self._by_node: dict[int, NodeSocket[Any, Any]] = {}
        self._kinds: dict[int, NodeKind] = {}
        self._closing = OwnedTasks(lambda error: log.error("connection not closed", exc_info=error))
        self._turns: WeakValueDictionary[tuple[str | None, str], asyncio.Lock] = WeakValueDictionary()

    def turn(self, cluster: str | None, name: str) -> asyncio.Lock:
        """To be held while a node is registered and enters: connections of one name do so in the order they came.

        Else the database could hear of the newer one first, and the older one would win.
        """
        return self._turns.setdefault((cluster, name), asyncio.Lock())

    def enter(self, node_id: int, kind: NodeKind, socket: NodeSocket[Any, Any]) -> None:
        """A node has connected. An older connection of the same name is closed: the newer one wins."""
        older = self._by_node.get(node_id)
        self._by_node[node_id] = socket
        self._kinds[node_id] = kind
        if older is not None:
            log.warning("node connected again; its older connection is closed", node=socket.peer.name)
            # The peer of the older one may be gone, and must not keep the newer one waiting.
            self._closing.start(older.close())

    def leave(self, node_id: int, socket: NodeSocket[Any, Any]) -> None:
        """A connection has ended."""
        if self._by_node.get(node_id) is socket:
            del self._by_node[node_id], self._kinds[node_id]

    def nodes_of(self, kind: NodeKind) -> list[int]:
        """Ids of the connected nodes of a kind."""
        return [node_id for node_id, its_kind in self._kinds.items() if its_kind is kind]

    async def close_all(self) -> None:
        """End every connection with a code that makes nodes go to another controller at once."""
        await asyncio.gather(*(socket.close() for socket in self._by_node.values()))
        await self._closing.end()
