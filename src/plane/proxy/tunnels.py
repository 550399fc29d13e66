"""The open tunnels of the proxy: counted for keepalive, and ended when the proxy stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from plane.proxy.connection_keeper import ConnectionKeeper

__all__ = ["Tunnels"]


class Tunnels:
    """All tunnels. A tunnel keeps its backend alive for as long as it is open."""

    def __init__(self, keeper: ConnectionKeeper) -> None:
        self._keeper = keeper
        self._clients: set[asyncio.Transport] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def begin(self, client: asyncio.Transport, backend_id: str) -> Callable[[], None]:
        """A request of ``client`` became a tunnel; call the result when it has ended."""
        self._clients.add(client)

        def end() -> None:
            self._clients.discard(client)
            self._keeper.ended(backend_id)

        return end

    def close(self) -> None:
        """End all."""
        for client in list(self._clients):
            client.abort()
