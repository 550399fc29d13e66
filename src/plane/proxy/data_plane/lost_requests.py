"""Answers requests that lead to no backend, and logs why: a wrong host, an absolute path, a session that has ended.

`dispatch` calls it. What a path means is decided by `plane.decisions.routing.absolute_path`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plane.decisions.http.request_head import RequestHead
from plane.decisions.routing.absolute_path import is_issued_token, referred_token
from plane.decisions.routing.rewrite import Route

if TYPE_CHECKING:
    from plane.proxy.data_plane.client_connection import ClientConnection
    from plane.proxy.service import ProxyService

__all__ = ["leads_nowhere", "live_referer", "wrong_host"]

# A longer first segment may be a mistyped token. Logs show as much of it as of a token.
_NAME_LIMIT = 20
_SHOWN_OF_TOKEN = 6
# The longest name of a host (RFC 1035, section 2.3.4). A client may send one of 64 KiB.
_HOST_LIMIT = 255
# Browsers ask for it by themselves, whatever the application does.
_FAVICON = "favicon.ico"


def wrong_host(client: ClientConnection, service: ProxyService, head: RequestHead, expected: bytes) -> None:
    """Answer a request for a host under which the session, or any, is not reached; the right one is ``expected``."""
    host, right = _shown_host(head), expected.decode("latin-1")
    service.wrong_hosts.warn(host.lower(), host=host, expected=right)
    client.answer(service.answers.wrong_host(host, right, client.form(), close=client.must_close()))


def live_referer(service: ProxyService, head: RequestHead) -> Route | None:
    """Return the route of the session whose page caused the request, as far as its `Referer` tells."""
    token = referred_token(head.fields.referer, head.fields.authority) if head.fields.referer else None
    found = None if token is None else service.routes.known(token)
    return found if isinstance(found, Route) else None


def leads_nowhere(
    client: ClientConnection, service: ProxyService, head: RequestHead, segment: str, status: int = 410
) -> None:
    """Answer a request whose first path segment leads nowhere, or that has none."""
    if is_issued_token(segment):
        client.answer_status(status)
        return
    route = live_referer(service, head)
    if segment != _FAVICON:
        host = _shown_host(head)
        facts = {"host": host} if route is None else {"host": host, "backend": route.backend_id}
        name = host.lower() if route is None else route.backend_id
        service.absolute_paths.warn(name, **facts, path=f"/{_shown_segment(segment)}")
    client.answer(service.answers.absolute_path(status, client.form(), close=client.must_close()))


def _shown_host(head: RequestHead) -> str:
    return head.fields.authority[:_HOST_LIMIT].decode("latin-1")


def _shown_segment(segment: str) -> str:
    return segment if len(segment) <= _NAME_LIMIT else f"{segment[:_SHOWN_OF_TOKEN]}…"
