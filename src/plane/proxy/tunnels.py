"""The open tunnels of the proxy: counted for keepalive, and ended when the proxy stops or their token leads nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from plane.decisions.request_rewrite import Route
from plane.proxy.connection_keeper import ConnectionKeeper

__all__ = ["Tunnels"]


class Tunnels:
    """All tunnels. A tunnel keeps its backend alive for as long as it is open."""

    def __init__(self, keeper: ConnectionKeeper) -> None:
        self._keeper = keeper
        self._clients: dict[asyncio.Transport, Route] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def begin(self, client: asyncio.Transport, route: Route) -> Callable[[], None]:
        """A request of ``client`` became a tunnel; call the result when it has ended."""
        self._clients[client] = route

        def end() -> None:
            self._clients.pop(client, None)
            self._keeper.ended(route.backend_id)

        return end

    def cut(self, leads_nowhere: Callable[[Route], bool]) -> int:
        """End those whose route leads nowhere any more; how many."""
        found = [client for client, route in self._clients.items() if leads_nowhere(route)]
        for client in found:
            client.abort()
        return len(found)

    def close(self) -> None:
        """End all."""
        self.cut(lambda _: True)
