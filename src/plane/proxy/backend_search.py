"""From a request's head to a connection to its backend, or to the answer that there is none.

On the path of a known token and a free connection nothing is awaited; a task exists only while a token is asked for or
a backend connected to, and the client's connection owns it. Where a request leads is decided by `plane.decisions`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from plane.decisions.answer_form import is_navigation
from plane.decisions.request_head import REPEATABLE, RequestHead
from plane.decisions.request_rewrite import Route, forwarded_head, host_belongs_to
from plane.decisions.request_way import ToToken, https_location, request_way
from plane.proxy import limits
from plane.proxy.entrance import Entrance

if TYPE_CHECKING:
    from plane.proxy.client_connection import ClientConnection
    from plane.proxy.service import ProxyService

__all__ = ["connect_anew", "find_backend"]

_SLASH = ord("/")

log = structlog.get_logger("plane.proxy")


def find_backend(client: ClientConnection, service: ProxyService, head: RequestHead, target: bytes) -> None:
    """Begin; ``client`` is told of the result, before this returns if nothing has to be asked.

    ``target`` is in origin form.
    """
    way = request_way(target, head.fields.host, service.cluster)
    if isinstance(way, ToToken) and client.entrance is not Entrance.TO_TLS:
        found = service.routes.known(way.token)
        if found is None:
            client.task = asyncio.ensure_future(_ask(client, service, head, target, way))
        elif found == "gone":
            client.answer_status(410)
        elif found == "unconfirmed":
            # The same for a connection in the pool: its request may reach a process whose key is another's by now.
            client.answer_status(503)
        else:
            _go(client, service, head, found, target, way.forwarded)
    elif way == "ready":
        client.answer(service.answers.ready(service.missing, close=client.must_close()))
    elif client.entrance is Entrance.TO_TLS:
        location = https_location(target, head.fields.host)
        client.answer(service.answers.redirect(location, close=client.must_close()))
    elif way == "root":
        client.answer(service.answers.of_root(client.form(), close=client.must_close()))
    else:
        assert isinstance(way, int)
        client.answer_status(way)


async def _ask(client: ClientConnection, service: ProxyService, head: RequestHead, target: bytes, way: ToToken) -> None:
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
    if route is None:
        client.answer_status(410)
    else:
        _go(client, service, head, route, target, way.forwarded)


def _go(
    client: ClientConnection, service: ProxyService, head: RequestHead, route: Route, target: bytes, forwarded: bytes
) -> None:
    if not host_belongs_to(head.fields.host, route.accepted_host):
        client.answer_status(403)
        return
    out = forwarded_head(head, target, forwarded, route, client.visitor.fields)
    # By index, since this is on the path of every request.
    has_slash = len(target) > route.slash_at and target[route.slash_at] == _SLASH
    client.use(route, out, route.answer_fields if has_slash else route.bare_answer_fields)
    # Without a call, since this is on the path of every request.
    repeatable = head.fields.length == 0 and head.method in REPEATABLE
    upstream = None if client.kept_upstream is None else client.take_upstream(route, repeatable=repeatable)
    if upstream is None:
        upstream = service.pool.take(route, repeatable=repeatable)
    if upstream is None:
        connect_anew(client, service, route)
    else:
        client.begin(upstream)


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
