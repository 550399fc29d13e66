"""What all connections of a proxy share: routes, pool, keepalive, its own answers, and the sweep of deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from plane.decisions.http.proxy_protocol import ProxyHeader
from plane.decisions.http.request_head import RequestReader
from plane.decisions.http.trusted_proxies import TrustedProxies
from plane.decisions.routing.host_names import HostNames, normal_host
from plane.decisions.routing.rewrite import Route
from plane.protocol.proxy_messages import BackendRemoved, MessageToProxy, RouteInfoResponse, TokensRevoked
from plane.proxy.data_plane.client_connection import ClientConnection
from plane.proxy.data_plane.keepalive_reporter import ConnectionKeeper
from plane.proxy.data_plane.limits import CUT_AFTER_S
from plane.proxy.data_plane.responses import OwnAnswers, server_field
from plane.proxy.data_plane.route_lookup import RouteLookup
from plane.proxy.data_plane.tunnels import Tunnels
from plane.proxy.data_plane.upstream import UpstreamPool
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.listeners.fd_budget import PER_CONNECTION, FdBudget
from plane.settings import ProxySettings
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarnings

__all__ = ["ProxyService"]

_NO_CONTROLLER = "not connected to a controller"

log = structlog.get_logger("plane.proxy")


class ProxyService:
    """One proxy. ``ask`` and ``keep_alive`` tell the controller, or do nothing without a connection."""

    def __init__(
        self,
        settings: ProxySettings,
        ask: Callable[[str], Awaitable[None]],
        keep_alive: Callable[[str], Awaitable[None]],
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        server = server_field()
        self.answers = OwnAnswers(server, settings.root_redirect_url)
        self.cluster = normal_host(settings.cluster.encode())
        self.now = loop.time
        self.limits = settings.limits
        self.http_limits = settings.http_limits
        self.names = HostNames(self.cluster, tuple(normal_host(name.encode()) for name in settings.public_hosts))
        self.reader = RequestReader(self.names, settings.http_limits)
        self.trusted_proxies = TrustedProxies(settings.trusted_proxies)
        self.proxy_protocol = settings.proxy_protocol
        self.waiting_page = settings.waiting_page
        self.open_files = FdBudget()
        # Timers of backends that have ended; `drain` ends them.
        self._cuts: dict[str, asyncio.TimerHandle] = {}
        self.routes = RouteLookup(ask, server)
        self.keeper = ConnectionKeeper(keep_alive)
        self.pool = UpstreamPool(settings)
        self.tunnels = Tunnels(self.keeper, loop.time, settings.limits.body_s)
        self.connections: set[ClientConnection] = set()
        # Of connections that came in by TLS; a file each already.
        self.handshakes = OwnedTasks(_defect)
        # What is missing before requests can be served, in words.
        self.missing = {_NO_CONTROLLER}
        self.stopping = False
        # Answers begun, by the first digit of their status.
        self.answered = [0] * 6
        self.absolute_paths = ThrottledWarnings(log, "application used an absolute path")
        self.wrong_hosts = ThrottledWarnings(log, "request for a host that is not the session's")

    def new_connection(self, entrance: EntryPoint, header: ProxyHeader | None = None) -> ClientConnection:
        """Return the protocol of a connection.

        ``header``: what a trusted proxy said at its start, with ``--proxy-protocol``.
        """
        return ClientConnection(self, entrance, header)

    # From the controller, or from the proxy whose worker this is.

    def connected(self) -> None:
        """There is a new connection to a controller."""
        self.missing.discard(_NO_CONTROLLER)
        self.keeper.connected()
        self.routes.connected()

    def disconnected(self) -> None:
        """There is none any more."""
        self.missing.add(_NO_CONTROLLER)
        self.routes.disconnected()

    def receive(self, message: MessageToProxy) -> None:
        """An answer, or news of a backend or of tokens."""
        match message.content:
            case RouteInfoResponse() as response:
                self.routes.answered(response)
            case BackendRemoved(backend):
                self.remove_backend(backend)
            case TokensRevoked(_, tokens):
                self.revoke(tokens)

    # From the connections.

    def has_room(self) -> bool:
        """Whether one more connection may be open."""
        used = len(self.connections) + len(self.handshakes) + self.pool.open + PER_CONNECTION * len(self.tunnels)
        return self.open_files.has_room(used, self.now())

    def remove_backend(self, backend_id: str) -> None:
        """It has ended: nothing leads there any more, and what is still open to it is cut soon."""
        self.routes.remove_backend(backend_id)
        self.pool.remove_backend(backend_id)
        if backend_id not in self._cuts:
            self._cuts[backend_id] = self._loop.call_later(CUT_AFTER_S, self._cut_backend, backend_id)

    def revoke(self, tokens: Iterable[str]) -> None:
        """They lead nowhere any more, and what was opened with them is cut now (A3)."""
        revoked = frozenset(tokens)
        self.routes.revoke(revoked)
        self._cut(lambda route: route.token in revoked, "token revoked")

    def _cut_backend(self, backend_id: str) -> None:
        del self._cuts[backend_id]
        self._cut(lambda route: route.backend_id == backend_id, "backend ended")

    def _cut(self, leads_nowhere: Callable[[Route], bool], why: str) -> None:
        found = [c for c in self.connections if c.route is not None and leads_nowhere(c.route)]
        for connection in found:
            connection.cut()
        count = len(found) + self.tunnels.cut(leads_nowhere)
        if count:
            log.info("connections cut", reason=why, count=count)

    async def sweep(self) -> None:
        """Close what has outlived its deadline; until cancelled.

        One timer for all deadlines, so that a request needs none.
        """
        while True:
            await asyncio.sleep(self.limits.sweep_interval_s)
            now = self.now()
            for connection in list(self.connections):
                if connection.deadline is not None and now >= connection.deadline:
                    connection.expire()
            self.tunnels.sweep(now)
            self.pool.close_idle(now)

    async def drain(self, limit_s: float) -> None:
        """Let answers finish and tunnels end, for so long; then cut what is left."""
        self.stopping = True
        for connection in list(self.connections):
            connection.finish()
        end = self.now() + limit_s
        while (self.connections or len(self.handshakes) or len(self.tunnels)) and self.now() < end:
            await asyncio.sleep(0.02)
        for timer in self._cuts.values():
            timer.cancel()
        await self.handshakes.end()
        for connection in list(self.connections):
            connection.cut()
        self.tunnels.close()
        self.pool.close()


def _defect(error: BaseException) -> None:
    log.error("TLS handshake failed by a defect of the proxy", exc_info=error)
