"""One proxy in one process: what its connections share, the messages of the controller, and the sweep of deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from plane.decisions.http.exchange_steps import ExchangeRules
from plane.decisions.http.exchange_timeouts import ExchangeTimeouts
from plane.decisions.http.proxy_protocol import ProxyHeader
from plane.decisions.http.request_head import RequestReader
from plane.decisions.http.trusted_proxies import TrustedProxies
from plane.decisions.routing.host_names import HostNames, normal_host
from plane.decisions.routing.rewrite import Route
from plane.protocol.proxy_messages import BackendRemoved, MessageToProxy, RouteInfoResponse, TokensRevoked
from plane.proxy.data_plane.client_connection import ClientConnection
from plane.proxy.data_plane.connection_context import ConnectionContext
from plane.proxy.data_plane.dispatch import Dispatcher
from plane.proxy.data_plane.keepalive_reporter import KeepaliveReporter
from plane.proxy.data_plane.limits import CUT_AFTER_S
from plane.proxy.data_plane.responses import OwnResponses, server_field
from plane.proxy.data_plane.route_lookup import RouteLookup
from plane.proxy.data_plane.tunnels import Tunnels
from plane.proxy.data_plane.upstream import UpstreamPool
from plane.proxy.listeners.entry_point import EntryPoint
from plane.proxy.listeners.fd_budget import PER_CONNECTION, FdBudget
from plane.settings import ProxyLimits, ProxySettings
from plane.tasks import OwnedTasks
from plane.tracing.span import Tracer

__all__ = ["SERVICE", "ProxyService"]

# The name of a proxy in traces.
SERVICE = "plane-proxy"

_NO_CONTROLLER = "not connected to a controller"

log = structlog.get_logger("plane.proxy")


class ProxyService:
    """One proxy.

    Args:
        request_routes: sends tokens to the controller, or does nothing without a connection.
        keep_alive: the same for a keepalive of a backend.
        tracer: measures requests; None if traces are not exported.
    """

    def __init__(
        self,
        settings: ProxySettings,
        request_routes: Callable[[Sequence[str]], Awaitable[None]],
        keep_alive: Callable[[str], Awaitable[None]],
        tracer: Tracer | None = None,
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        server = server_field()
        responses = OwnResponses(server, settings.root_redirect_url)
        cluster = normal_host(settings.cluster.encode())
        names = HostNames(cluster, tuple(normal_host(name.encode()) for name in settings.public_hosts))
        self.limits = limits = settings.limits
        self.trusted_proxies = TrustedProxies(settings.trusted_proxies)
        self.proxy_protocol = settings.proxy_protocol
        self._now = loop.time
        self.fd_budget = FdBudget()
        # Timers by backend that has ended; `drain` cancels them.
        self._cuts: dict[str, asyncio.TimerHandle] = {}
        self.routes = RouteLookup(request_routes, server)
        self.keepalive = KeepaliveReporter(keep_alive)
        self.pool = UpstreamPool(settings)
        self.tunnels = Tunnels(self.keepalive, loop.time, limits.body_s)
        # TLS handshakes in progress, each of which holds a file.
        self.handshakes = OwnedTasks(_handshake_failed)
        # What is missing before requests can be served, in words.
        self.missing = {_NO_CONTROLLER}
        self._context = ConnectionContext(
            now=loop.time,
            has_room=self.has_room,
            rules=ExchangeRules(
                requests=RequestReader(names, settings.http_limits),
                render=responses.of_status,
                timeouts=_exchange_timeouts(limits),
                limits=settings.http_limits,
            ),
            names=names,
            cluster=cluster,
            trusted_proxies=self.trusted_proxies,
            dispatch=Dispatcher(
                self.routes,
                self.pool,
                responses,
                cluster,
                self.missing,
                shows_waiting_page=settings.waiting_page,
                waiting_page_after_s=limits.waiting_page_after_s,
            ),
            keepalive=self.keepalive,
            tunnels=self.tunnels,
            tracer=tracer,
        )
        self.connections = self._context.connections

    @property
    def responses_begun(self) -> list[int]:
        """Responses begun, by the first digit of their status."""
        return self._context.responses_begun

    def new_connection(self, entry_point: EntryPoint, header: ProxyHeader | None = None) -> ClientConnection:
        """Return the protocol of a connection.

        ``header``: what a trusted proxy sent at its start, with ``--proxy-protocol``.
        """
        return ClientConnection(self._context, entry_point, header)

    # From the controller, or from the proxy whose worker this is.

    def connected(self) -> None:
        """Handle a new connection to a controller."""
        self.missing.discard(_NO_CONTROLLER)
        self.keepalive.connected()
        self.routes.connected()

    def disconnected(self) -> None:
        """Handle the end of the connection."""
        self.missing.add(_NO_CONTROLLER)
        self.routes.disconnected()

    def receive(self, message: MessageToProxy) -> None:
        """Handle a route, the end of a backend, or revoked tokens."""
        match message.content:
            case RouteInfoResponse() as response:
                self.routes.receive(response)
            case BackendRemoved(backend):
                self.remove_backend(backend)
            case TokensRevoked() as revoked:
                self.revoke(revoked)

    # From the connections.

    def has_room(self) -> bool:
        """Whether one more connection may be open."""
        used = len(self.connections) + len(self.handshakes) + self.pool.open + PER_CONNECTION * len(self.tunnels)
        return self.fd_budget.has_room(used, self._now())

    def remove_backend(self, backend_id: str) -> None:
        """Follow no route to a backend that has ended, and soon cut what is still open to it."""
        self.routes.remove_backend(backend_id)
        self.pool.remove_backend(backend_id)
        if backend_id not in self._cuts:
            self._cuts[backend_id] = self._loop.call_later(CUT_AFTER_S, self._cut_backend, backend_id)

    def revoke(self, revoked: TokensRevoked) -> None:
        """Follow no route of revoked tokens of a backend, and cut what was opened with them at once.

        Tokens of the user that had expired before are not listed. Others of the same user are newer.
        """
        tokens = frozenset(revoked.tokens)
        self.routes.revoke(tokens)

        def is_revoked(route: Route) -> bool:
            return route.token in tokens or (route.user == revoked.user and self.routes.has_expired(route))

        self._cut("token revoked", revoked.backend, is_revoked)

    def _cut_backend(self, backend_id: str) -> None:
        del self._cuts[backend_id]
        self._cut("backend ended", backend_id)

    def _cut(self, reason: str, backend_id: str, is_cut: Callable[[Route], bool] = lambda _: True) -> None:
        """Close what is open to a backend, or only what was opened by routes of which ``is_cut`` is true."""
        found = [
            connection
            for connection in self.connections
            if (route := connection.route) is not None and route.backend_id == backend_id and is_cut(route)
        ]
        for connection in found:
            connection.cut()
        count = len(found) + self.tunnels.cut(backend_id, is_cut)
        if count:
            log.info("connections cut", reason=reason, count=count)

    async def sweep(self) -> None:
        """Close what has outlived its deadline, until cancelled.

        One timer for all deadlines, so that a request needs none.
        """
        while True:
            await asyncio.sleep(self.limits.sweep_interval_s)
            now = self._now()
            for connection in list(self.connections):
                if connection.deadline is not None and now >= connection.deadline:
                    connection.expire()
            self.tunnels.sweep(now)
            self.pool.close_idle()

    async def drain(self, timeout_s: float) -> None:
        """Let responses finish and tunnels end for up to ``timeout_s``, then cut the rest."""
        self._context.stopping = True
        for connection in list(self.connections):
            connection.stop()
        end = self._now() + timeout_s
        while (self.connections or len(self.handshakes) or len(self.tunnels)) and self._now() < end:
            await asyncio.sleep(0.02)
        for timer in self._cuts.values():
            timer.cancel()
        await self.handshakes.end()
        for connection in list(self.connections):
            connection.cut()
        self.tunnels.close()
        self.pool.close()


def _handshake_failed(error: BaseException) -> None:
    if isinstance(error, OSError):
        # The client is gone, too slow, or does not speak TLS.
        log.debug("TLS handshake failed", error=str(error))
        return
    log.error("TLS handshake failed unexpectedly", exc_info=error)


def _exchange_timeouts(limits: ProxyLimits) -> ExchangeTimeouts:
    return ExchangeTimeouts(
        head_s=limits.head_s,
        idle_s=limits.idle_s,
        body_s=limits.body_s,
        half_closed_s=limits.half_closed_s,
        closing_s=limits.closing_s,
        linger_s=limits.linger_s,
        first_request_s=limits.first_request_s,
    )
