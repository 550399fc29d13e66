"""The open node sockets of one controller: one per node, all closed when the controller stops."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import structlog

from plane.protocol.names import NodeKind
from plane.tasks import OwnedTasks
from plane.transport.node_socket import NodeSocket

__all__ = ["NodeRegistry"]

log = structlog.get_logger("plane.controller")


class NodeRegistry:
    """The open node sockets of one controller."""

    def __init__(self) -> None:
        self._by_node: dict[int, NodeSocket[Any, Any]] = {}
        self._kinds: dict[int, NodeKind] = {}
        self._closing = OwnedTasks(lambda error: log.error("node connection not closed", exc_info=error))
        self._locks: WeakValueDictionary[tuple[str | None, str], asyncio.Lock] = WeakValueDictionary()

    def registration_lock(self, cluster: str | None, name: str) -> asyncio.Lock:
        """Return the lock to hold while a node is stored and added.

        It keeps connections of one name in order. Otherwise the database could store the newer one first, and the
        older one would win.
        """
        return self._locks.setdefault((cluster, name), asyncio.Lock())

    def add(self, node_id: int, kind: NodeKind, socket: NodeSocket[Any, Any]) -> None:
        """Add a node's connection. An older connection of the same node is closed: the newer one wins."""
        older = self._by_node.get(node_id)
        self._by_node[node_id] = socket
        self._kinds[node_id] = kind
        if older is not None:
            log.warning("node connected again; closing its older connection", node=socket.peer.name)
            # The peer of the older one may have vanished, and must not delay the newer one.
            self._closing.start(older.close())

    def remove(self, node_id: int, socket: NodeSocket[Any, Any]) -> None:
        """Remove a connection that has ended."""
        if self._by_node.get(node_id) is socket:
            del self._by_node[node_id], self._kinds[node_id]

    def connected(self, kind: NodeKind) -> list[int]:
        """Return the ids of the connected nodes of a kind."""
        return [node_id for node_id, its_kind in self._kinds.items() if its_kind is kind]

    def reconnect_all(self) -> None:
        """Begin to close every connection: the nodes connect again, and report their state."""
        for socket in self._by_node.values():
            self._closing.start(socket.close())

    async def close_all(self) -> None:
        """Close every connection with a code that makes nodes reconnect, to another controller, at once."""
        await asyncio.gather(*(socket.close() for socket in self._by_node.values()))
        await self._closing.end()
