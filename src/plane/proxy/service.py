"""What all connections of a proxy share: routes, pool, keepalive, its own answers, and the sweep of deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from plane.decisions.request_rewrite import normal_host
from plane.proxy.answers import OwnAnswers, server_field
from plane.proxy.client_connection import ClientConnection, Entrance
from plane.proxy.connection_keeper import ConnectionKeeper
from plane.proxy.route_lookup import RouteLookup
from plane.proxy.tunnels import Tunnels
from plane.proxy.upstream import UpstreamPool
from plane.settings import ProxySettings

__all__ = ["ProxyService"]

# One timer for all deadlines: they are seconds, and none is on the path of a request.
SWEEP_INTERVAL_S = 1.0


class ProxyService:
    """One proxy. ``ask`` and ``keep_alive`` tell the controller, or do nothing without a connection."""

    def __init__(
        self,
        settings: ProxySettings,
        ask: Callable[[str], Awaitable[None]],
        keep_alive: Callable[[str], Awaitable[None]],
    ) -> None:
        loop = asyncio.get_running_loop()
        server = server_field()
        self.answers = OwnAnswers(server, settings.root_redirect_url)
        self.cluster = normal_host(settings.cluster.encode())
        self.now = loop.time
        self.routes = RouteLookup(ask, server)
        self.keeper = ConnectionKeeper(keep_alive)
        self.pool = UpstreamPool(loop)
        self.tunnels = Tunnels(self.keeper)
        self.connections: set[ClientConnection] = set()
        # What is missing before requests can be served, in words.
        self.missing = {"not connected to a controller"}
        self.stopping = False

    def new_connection(self) -> ClientConnection:
        """The protocol of a connection that came in by plain HTTP."""
        return ClientConnection(self, Entrance.HTTP)

    def new_tls_connection(self) -> ClientConnection:
        """That of one that came in by TLS."""
        return ClientConnection(self, Entrance.TLS)

    def new_redirected_connection(self) -> ClientConnection:
        """That of one that came in by plain HTTP where TLS is spoken."""
        return ClientConnection(self, Entrance.TO_TLS)

    def readiness(self, *, close: bool) -> bytes:
        """The answer to ``/ready``."""
        if self.missing:
            return self.answers.not_ready(", ".join(sorted(self.missing)), close=close)
        return self.answers.of_status(200, close=close)

    async def sweep(self) -> None:
        """Close what has outlived its deadline; until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = self.now()
            for connection in list(self.connections):
                if connection.deadline is not None and now >= connection.deadline:
                    connection.expire()
            self.pool.close_idle(now)

    async def drain(self, limit_s: float) -> None:
        """Let answers finish and tunnels end, for so long; then cut what is left."""
        self.stopping = True
        for connection in list(self.connections):
            connection.finish()
        end = self.now() + limit_s
        while (self.connections or len(self.tunnels)) and self.now() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.cut()
        self.tunnels.close()
        self.pool.close()
