"""From a request's head to a connection to its backend, or to the response that there is none.

Nothing is awaited for a known token and a free connection. A request whose token is looked up waits in `RouteLookup`. A
task exists only while a backend is being connected to, and the client's connection owns it. `plane.decisions.routing`
decides where a request leads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import structlog

from plane.decisions.http.error_format import is_navigation
from plane.decisions.http.exchange_commands import Connect
from plane.decisions.http.request_head import RequestHead
from plane.decisions.routing.absolute_path import is_issued_token
from plane.decisions.routing.request_target import RouteMatch, https_location, match_target
from plane.decisions.routing.rewrite import Route, forwarded_head, host_belongs_to, split_target
from plane.decisions.routing.token_cookie import redirect_target, set_cookie_field
from plane.proxy.data_plane.interfaces import Requester, Upstream
from plane.proxy.data_plane.lost_requests import LostRequests
from plane.proxy.data_plane.responses import OwnResponses
from plane.proxy.data_plane.route_lookup import RouteLookup, RouteWaiter
from plane.proxy.data_plane.upstream import UpstreamPool
from plane.proxy.listeners.entry_point import EntryPoint
from plane.tracing.span import Kind, child

__all__ = ["Dispatcher"]

_SLASH: Final = ord("/")
_READ_ONLY: Final = frozenset((b"GET", b"HEAD"))
# Members of enumerations on the path of every request. In Python 3.11 the access to a member takes 70 ns to 90 ns.
_NEW: Final = Connect.NEW
_REPEATABLE: Final = Connect.REPEATABLE
_TO_TLS: Final = EntryPoint.TO_TLS

log = structlog.get_logger("plane.proxy")


@dataclass(slots=True)
class _CookieMatch:
    """To the backend of ``token``, which came in a cookie; it gets ``forwarded`` as its target."""

    token: str
    forwarded: bytes


_Match: TypeAlias = RouteMatch | _CookieMatch


class _WaitingRequest:
    """A request that waits for the route of the first of its ``matches``."""

    __slots__ = ("_dispatcher", "_head", "_matches", "_page_timer", "_requester", "_span")

    def __init__(
        self, dispatcher: Dispatcher, requester: Requester, head: RequestHead, matches: tuple[_Match, ...]
    ) -> None:
        self._dispatcher = dispatcher
        # None when it does not wait any more; the connection may live, and refer to this, much longer.
        self._requester: Requester | None = requester
        self._head = head
        self._matches = matches
        self._page_timer: asyncio.TimerHandle | None = None
        self._span = None if requester.span is None else requester.span.child("look up route", Kind.CLIENT)

    def show_page_after(self, delay_s: float) -> None:
        """Respond with the waiting page if there is no route within ``delay_s``."""
        self._page_timer = asyncio.get_running_loop().call_later(delay_s, self._show_page)

    def _show_page(self) -> None:
        if (requester := self._end()) is not None:
            self._dispatcher.leave(self._matches[0].token, self)
            self._dispatcher.show_waiting_page(requester)

    def route_found(self, route: Route | None) -> None:
        if (requester := self._end()) is not None:
            self._dispatcher.route_found(requester, self._head, self._matches, route)

    def lookup_failed(self) -> None:
        if self._span is not None:
            self._span.fail("no response of a controller")
        if (requester := self._end()) is not None:
            requester.respond(504)

    def cancel(self) -> None:
        if self._end() is not None:
            self._dispatcher.leave(self._matches[0].token, self)

    def _end(self) -> Requester | None:
        """Stop waiting. Return whose request this is, unless it has already stopped."""
        requester, self._requester = self._requester, None
        if self._page_timer is not None:
            self._page_timer.cancel()
            self._page_timer = None
        if self._span is not None:
            self._span.end()
        return requester


class Dispatcher:
    """Finds the backends of requests and connects to them. See `Dispatch`.

    Args:
        cluster: the cluster's own name, as by `normal_host`.
        missing: what is missing before requests can be served, in words; the caller changes it.
        shows_waiting_page: whether a browser sees a page while its backend starts.
        waiting_page_after_s: a backend that starts within this time shows no waiting page before.
    """

    __slots__ = (
        "_cluster",
        "_lost",
        "_missing",
        "_pool",
        "_responses",
        "_routes",
        "_shows_waiting_page",
        "_waiting_page_after_s",
    )

    def __init__(
        self,
        routes: RouteLookup,
        pool: UpstreamPool,
        responses: OwnResponses,
        cluster: bytes,
        missing: set[str],
        *,
        shows_waiting_page: bool,
        waiting_page_after_s: float,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._responses = responses
        self._lost = LostRequests(routes, responses)
        self._cluster = cluster
        self._missing = missing
        self._shows_waiting_page = shows_waiting_page
        self._waiting_page_after_s = waiting_page_after_s

    # Finding.

    def find_backend(self, requester: Requester, head: RequestHead) -> None:
        target = head.target
        if head.fields.token_cookie is not None and requester.entry_point is not _TO_TLS:
            token = head.fields.token_cookie.token(over_tls=requester.visitor.over_tls)
            if token is not None and head.fields.host != self._cluster:
                path_token, forwarded = split_target(target)
                cookie = _CookieMatch(token, target)
                # A new token in the path goes before the cookie of an older visit.
                new = (RouteMatch(path_token, forwarded),) if is_issued_token(path_token) else ()
                self._try(requester, head, (*new, cookie))
                return
        match = match_target(target, head.fields.host, self._cluster)
        if isinstance(match, RouteMatch) and requester.entry_point is not _TO_TLS:
            found = self._routes.cached(match.token)
            if isinstance(found, Route):
                self._forward(requester, head, found, match)
            elif found is None:
                self._look_up(requester, head, (match,))
            elif found == "gone":
                self._lost.respond(requester, head, match.token)
            else:
                # The same for a connection in the pool: its request may reach a process whose key is another's by now.
                requester.respond(503)
        else:
            self._respond_without_token(requester, head, match)

    def _respond_without_token(
        self,
        requester: Requester,
        head: RequestHead,
        match: Literal["ready", "root"] | Literal[403, 410] | RouteMatch,
    ) -> None:
        responses, close, target = self._responses, requester.closes(), head.target
        if match == "ready":
            requester.respond_with(responses.ready(self._missing, close=close))
        elif requester.entry_point is _TO_TLS:
            requester.respond_with(responses.redirect(https_location(target, head.fields.authority), close=close))
        elif match == "root":
            if not responses.redirects_root and self._lost.live_referer(head) is not None:
                self._lost.respond(requester, head, "", status=400)
                return
            own_host = head.fields.host == self._cluster
            requester.respond_with(responses.of_root(requester.error_format(), close=close, own_host=own_host))
        elif match == 403:
            self._lost.wrong_host(requester, head, self._cluster)
        else:
            self._lost.respond(requester, head, split_target(target)[0])

    def _try(self, requester: Requester, head: RequestHead, matches: tuple[_Match, ...]) -> None:
        """Follow the first match that leads somewhere. Without one, respond as for a token that has ended."""
        for index, match in enumerate(matches):
            found = self._routes.cached(match.token)
            if found is None:
                self._look_up(requester, head, matches[index:])
                return
            if found == "unconfirmed":
                requester.respond(503)
                return
            if isinstance(found, Route) and _is_open(match, found, head):
                self._forward(requester, head, found, match)
                return
        requester.respond(410)

    def _look_up(self, requester: Requester, head: RequestHead, matches: tuple[_Match, ...]) -> None:
        """Request the route of the first match from the controller; those after it are tried if it has none."""
        waiting = _WaitingRequest(self, requester, head, matches)
        requester.wait_for(waiting)
        self._routes.look_up(matches[0].token, waiting)
        if self._shows_waiting_page and is_navigation(head.method, head.fields.lines):
            waiting.show_page_after(self._waiting_page_after_s)

    def show_waiting_page(self, requester: Requester) -> None:
        """Respond to a browser whose backend is still starting."""
        requester.respond_with(self._responses.waiting(close=requester.closes()))

    def leave(self, token: str, waiting: RouteWaiter) -> None:
        """Have a request not wait for its route any more."""
        self._routes.leave(token, waiting)

    def route_found(
        self, requester: Requester, head: RequestHead, matches: tuple[_Match, ...], route: Route | None
    ) -> None:
        """Handle the route of the first match, or that there is none."""
        match = matches[0]
        if route is not None and _is_open(match, route, head):
            self._forward(requester, head, route, match)
        elif len(matches) > 1 or isinstance(match, _CookieMatch):
            self._try(requester, head, matches[1:])
        else:
            self._lost.respond(requester, head, match.token)

    # Forwarding.

    def _forward(self, requester: Requester, head: RequestHead, route: Route, match: _Match) -> None:
        host = head.fields.host
        # On the path of every request, so without a call where that is possible.
        if host != route.accepted_host and not host_belongs_to(host, route.accepted_host):
            self._lost.wrong_host(requester, head, route.accepted_host)
            return
        by_cookie = False
        if route.token_in_cookie:
            by_cookie = isinstance(match, _CookieMatch)
            if not self._may_be_forwarded(requester, head, route, by_cookie=by_cookie):
                return
        target = head.target
        out = forwarded_head(head, match.forwarded, route, requester.visitor.fields, by_cookie=by_cookie)
        if by_cookie:
            response_fields = route.cookie_response_fields
        else:
            has_slash = len(target) > route.slash_at and target[route.slash_at] == _SLASH
            response_fields = route.response_fields if has_slash else route.bare_response_fields
        requester.forward(route, out, response_fields, b"" if by_cookie else route.rewritten_prefix)

    def _may_be_forwarded(self, requester: Requester, head: RequestHead, route: Route, *, by_cookie: bool) -> bool:
        """Return whether a request to a backend whose token belongs into a cookie is forwarded; else respond.

        With the token in the path, what only reads is the first visit. Everything else is forwarded as it is: a
        redirect would lose its body, and programs that keep no cookies use the token in the path.
        """
        upgrade, over_tls = head.fields.upgrade is not None, requester.visitor.over_tls
        if not by_cookie:
            if upgrade or head.method not in _READ_ONLY:
                return True
            field = set_cookie_field(route.token, over_tls=over_tls)
            location = redirect_target(head.target, route.token)
            requester.respond_with(self._responses.first_visit(location, field, close=requester.closes()))
            return False
        cookie = head.fields.token_cookie
        assert cookie is not None
        if cookie.may_be_used(head.method, head.fields.authority, upgrade=upgrade, over_tls=over_tls):
            return True
        log.info("request of another origin refused", backend=route.backend_id)
        requester.respond_with(self._responses.other_origin(requester.error_format(), close=requester.closes()))
        return False

    # Connecting.

    def connect(self, requester: Requester, route: Route, how: Connect, kept: Upstream | None) -> None:
        if how is not _NEW:
            repeatable = how is _REPEATABLE
            if kept is not None:
                if kept.may_serve(route, repeatable=repeatable):
                    requester.upstream_connected(kept, reused=True)
                    return
                kept.abort()
            upstream = self._pool.take(route, repeatable=repeatable)
            if upstream is not None:
                requester.upstream_connected(upstream, reused=True)
                return
        requester.run(self._connect(requester, route))

    async def _connect(self, requester: Requester, route: Route) -> None:
        try:
            with child(requester.span, "connect to backend", Kind.CLIENT):
                upstream = await self._pool.connect(route)
        except OSError as error:
            # A TimeoutError is one. The controller may know better by now.
            log.info("backend not reachable", backend=route.backend_id, error=str(error))
            self._routes.forget_backend(route.backend_id)
            requester.connect_failed(timed_out=isinstance(error, TimeoutError))
            return
        requester.upstream_connected(upstream, reused=False)


def _is_open(match: _Match, route: Route, head: RequestHead) -> bool:
    """Return whether a route may be reached by ``match``. A sibling may have set a cookie for its own backend."""
    if isinstance(match, RouteMatch):
        return True
    return route.token_in_cookie and host_belongs_to(head.fields.host, route.accepted_host)
