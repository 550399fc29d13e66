"""What all connections of a proxy share: routes, pool, keepalive, its own answers, and the sweep of deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from plane.proxy.answers import own_answer, server_field
from plane.proxy.client_connection import ClientConnection
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
        self._loop = asyncio.get_running_loop()
        self._server_field = server_field()
        self._root_redirect_url = settings.root_redirect_url
        self._cluster = settings.cluster.lower().encode().removesuffix(b":443")
        self._own_answers: dict[tuple[int, bool], bytes] = {}
        self.now = self._loop.time
        self.routes = RouteLookup(ask, self._server_field)
        self.keeper = ConnectionKeeper(keep_alive)
        self.pool = UpstreamPool(self._loop)
        self.tunnels = Tunnels(self.keeper)
        self.connections: set[ClientConnection] = set()
        self.ready = False
        self.stopping = False

    def new_connection(self) -> ClientConnection:
        """The protocol of an accepted connection."""
        return ClientConnection(self)

    def client_fields(self, address: str) -> bytes:
        """The lines that tell the backend of the client's connection."""
        return f"\r\nx-forwarded-for: {address}\r\nx-forwarded-proto: http".encode()

    def host_is_ours(self, host: bytes) -> bool:
        """Whether Host is the cluster or something below it; which, is the route's matter."""
        host = host.lower().removesuffix(b":443")
        return host == self._cluster or host.endswith(b"." + self._cluster)

    def answer(self, status: int, *, close: bool) -> bytes:
        """An answer of the proxy's own, written once."""
        known = self._own_answers.get((status, close))
        if known is None:
            known = self._own_answers[status, close] = own_answer(status, self._server_field, close=close)
        return known

    def answer_without_token(self, target: bytes, *, close: bool) -> bytes:
        """``/ready``, or ``/``."""
        if target == b"/ready":
            return self.answer(200 if self.ready else 503, close=close)
        if self._root_redirect_url is None:
            return self.answer(400, close=close)
        return own_answer(301, self._server_field, close=close, location=self._root_redirect_url)

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
