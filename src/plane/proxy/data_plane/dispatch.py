"""From a request's head to a connection to its backend, or to the answer that there is none.

On the path of a known token and a free connection nothing is awaited; a task exists only while a token is asked for or
a backend connected to, and the client's connection owns it. Where a request leads is decided by `plane.decisions`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import structlog

from plane.decisions.http.error_format import is_navigation
from plane.decisions.http.request_head import REPEATABLE, RequestHead
from plane.decisions.routing.absolute_path import is_issued_token
from plane.decisions.routing.request_target import ToToken, https_location, request_way
from plane.decisions.routing.rewrite import Route, forwarded_head, host_belongs_to, split_target
from plane.decisions.routing.token_cookie import redirect_target, set_cookie_field
from plane.proxy.data_plane import limits
from plane.proxy.data_plane.lost_requests import leads_nowhere, live_referer, wrong_host
from plane.proxy.listeners.entry_point import EntryPoint

if TYPE_CHECKING:
    from plane.proxy.data_plane.client_connection import ClientConnection
    from plane.proxy.service import ProxyService

__all__ = ["connect_anew", "find_backend"]

_SLASH = ord("/")
_READ_ONLY = frozenset((b"GET", b"HEAD"))

log = structlog.get_logger("plane.proxy")


def find_backend(client: ClientConnection, service: ProxyService, head: RequestHead, target: bytes) -> None:
    """Begin; ``client`` is told of the result, before this returns if nothing has to be asked.

    ``target`` is in origin form.
    """
    if head.fields.token_cookie is not None and client.entrance is not EntryPoint.TO_TLS:
        token = head.fields.token_cookie.token(over_tls=client.came_by_tls)
        if token is not None and head.fields.host != service.cluster:
            path_token, forwarded = split_target(target)
            ways = (_ByCookie(token, target),)
            # A new token in the path goes before the cookie of an older visit.
            new = (ToToken(path_token, forwarded),) if is_issued_token(path_token) else ()
            _try(client, service, head, target, (*new, *ways))
            return
    way = request_way(target, head.fields.host, service.cluster)
    if isinstance(way, ToToken) and client.entrance is not EntryPoint.TO_TLS:
        found = service.routes.known(way.token)
        if found is None:
            client.task = asyncio.ensure_future(_ask(client, service, head, target, (way,)))
        elif found == "gone":
            leads_nowhere(client, service, head, way.token)
        elif found == "unconfirmed":
            # The same for a connection in the pool: its request may reach a process whose key is another's by now.
            client.answer_status(503)
        else:
            _go(client, service, head, found, target, way)
    else:
        _answer_without_token(client, service, head, target, way)


def _answer_without_token(
    client: ClientConnection,
    service: ProxyService,
    head: RequestHead,
    target: bytes,
    way: Literal["ready", "root"] | Literal[403, 410] | ToToken,
) -> None:
    if way == "ready":
        client.answer(service.answers.ready(service.missing, close=client.must_close()))
    elif client.entrance is EntryPoint.TO_TLS:
        location = https_location(target, head.fields.authority)
        client.answer(service.answers.redirect(location, close=client.must_close()))
    elif way == "root":
        if not service.answers.redirects_root and live_referer(service, head) is not None:
            leads_nowhere(client, service, head, "", status=400)
            return
        own_host = head.fields.host == service.cluster
        client.answer(service.answers.of_root(client.form(), close=client.must_close(), own_host=own_host))
    elif way == 403:
        wrong_host(client, service, head, service.cluster)
    else:
        leads_nowhere(client, service, head, split_target(target)[0])


@dataclass(slots=True)
class _ByCookie:
    """To the backend of ``token``, which came in a cookie; it gets ``forwarded`` as its target."""

    token: str
    forwarded: bytes


_Way: TypeAlias = ToToken | _ByCookie


def _try(
    client: ClientConnection, service: ProxyService, head: RequestHead, target: bytes, ways: tuple[_Way, ...]
) -> None:
    """Go the first way that leads somewhere. Ends like a request with a token that has ended, if none does."""
    for index, way in enumerate(ways):
        found = service.routes.known(way.token)
        if found is None:
            client.task = asyncio.ensure_future(_ask(client, service, head, target, ways[index:]))
            return
        if found == "unconfirmed":
            client.answer_status(503)
            return
        if isinstance(found, Route) and _is_open(way, found, head):
            _go(client, service, head, found, target, way)
            return
    client.answer_status(410)


def _is_open(way: _Way, route: Route, head: RequestHead) -> bool:
    """Whether a route may be reached so. A sibling may have set a cookie for its own backend."""
    if isinstance(way, ToToken):
        return True
    return route.token_in_cookie and host_belongs_to(head.fields.host, route.accepted_host)


async def _ask(
    client: ClientConnection, service: ProxyService, head: RequestHead, target: bytes, ways: tuple[_Way, ...]
) -> None:
    """Ask where the first way leads; ``ways`` after it are tried if it leads nowhere."""
    way = ways[0]
    shows_page = service.waiting_page and is_navigation(head.method, head.fields.lines)
    try:
        async with asyncio.timeout(limits.WAITING_PAGE_AFTER_S if shows_page else None) as patience:
            route = await service.routes.ask(way.token)
    except TimeoutError:
        client.task = None
        if patience.expired():
            client.answer(service.answers.waiting(close=client.must_close()))
        else:
            client.answer_status(504)
        return
    client.task = None
    if route is not None and _is_open(way, route, head):
        _go(client, service, head, route, target, way)
    elif len(ways) > 1 or isinstance(way, _ByCookie):
        _try(client, service, head, target, ways[1:])
    else:
        leads_nowhere(client, service, head, way.token)


def _go(
    client: ClientConnection, service: ProxyService, head: RequestHead, route: Route, target: bytes, way: _Way
) -> None:
    if not host_belongs_to(head.fields.host, route.accepted_host):
        wrong_host(client, service, head, route.accepted_host)
        return
    # On the path of every request, so without a call.
    by_cookie = False
    if route.token_in_cookie:
        by_cookie = isinstance(way, _ByCookie)
        if not _may_go_on(client, service, head, route, target, by_cookie=by_cookie):
            return
    out = forwarded_head(head, target, way.forwarded, route, client.visitor.fields, by_cookie=by_cookie)
    if by_cookie:
        answer_fields = route.cookie_answer_fields
    else:
        # By index, for the same reason.
        has_slash = len(target) > route.slash_at and target[route.slash_at] == _SLASH
        answer_fields = route.answer_fields if has_slash else route.bare_answer_fields
    client.use(route, out, answer_fields, b"" if by_cookie else route.rewritten_prefix)
    repeatable = head.fields.length == 0 and head.method in REPEATABLE
    upstream = None if client.kept_upstream is None else client.take_upstream(route, repeatable=repeatable)
    if upstream is None:
        upstream = service.pool.take(route, repeatable=repeatable)
    if upstream is None:
        connect_anew(client, service, route)
    else:
        client.begin(upstream)


def _may_go_on(
    client: ClientConnection,
    service: ProxyService,
    head: RequestHead,
    route: Route,
    target: bytes,
    *,
    by_cookie: bool,
) -> bool:
    """Whether a request to a backend whose token belongs into a cookie is forwarded; otherwise answer it.

    With the token in the path, what only reads is the first visit. Everything else is forwarded as it is: a redirect
    would lose its body, and programs that keep no cookies use the token in the path.
    """
    upgrade = head.fields.upgrade is not None
    if not by_cookie:
        if upgrade or head.method not in _READ_ONLY:
            return True
        field = set_cookie_field(route.token, over_tls=client.came_by_tls)
        location = redirect_target(target, route.token)
        client.answer(service.answers.first_visit(location, field, close=client.must_close()))
        return False
    cookie = head.fields.token_cookie
    assert cookie is not None
    authority = head.fields.authority
    if cookie.may_be_used(head.method, authority, upgrade=upgrade, over_tls=client.came_by_tls):
        return True
    log.info("request of another origin refused", backend=route.backend_id)
    client.answer(service.answers.other_origin(client.form(), close=client.must_close()))
    return False


def connect_anew(client: ClientConnection, service: ProxyService, route: Route) -> None:
    """Connect, though there may be a free connection; ``client`` is told of the result."""
    client.task = asyncio.ensure_future(_connect(client, service, route))


async def _connect(client: ClientConnection, service: ProxyService, route: Route) -> None:
    try:
        upstream = await service.pool.connect(route)
    except OSError as error:
        # A TimeoutError is one. The controller may know better by now.
        log.info("backend not reached", backend=route.backend_id, error=str(error))
        service.routes.forget_backend(route.backend_id)
        client.task = None
        client.answer_status(504 if isinstance(error, TimeoutError) else 502)
        return
    client.task = None
    client.begin(upstream)
