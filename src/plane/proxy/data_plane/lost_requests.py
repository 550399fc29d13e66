"""Responds to requests that lead to no backend, and logs why: a wrong host, an absolute path, a session that has ended.

`dispatch` calls it. `plane.decisions.routing.absolute_path` decides what a path means.
"""

from __future__ import annotations

from typing import Final

import structlog

from plane.decisions.http.request_head import RequestHead
from plane.decisions.routing.absolute_path import is_issued_token, referred_token
from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.interfaces import Requester
from plane.proxy.data_plane.responses import OwnResponses
from plane.proxy.data_plane.route_lookup import RouteLookup
from plane.throttled_log import ThrottledWarnings

__all__ = ["LostRequests"]

# A longer first segment may be a mistyped token. Logs show as much of it as of a token.
_NAME_LIMIT: Final = 20
_SHOWN_OF_TOKEN: Final = 6
# The longest name of a host (RFC 1035, section 2.3.4). A client may send one of 64 KiB.
_HOST_LIMIT: Final = 255
# Browsers request it by themselves, whatever the application does.
_FAVICON: Final = "favicon.ico"

log = structlog.get_logger("plane.proxy")


class LostRequests:
    """Responds to requests that lead to no backend."""

    __slots__ = ("_absolute_paths", "_responses", "_routes", "_wrong_hosts")

    def __init__(self, routes: RouteLookup, responses: OwnResponses) -> None:
        self._routes = routes
        self._responses = responses
        self._absolute_paths = ThrottledWarnings(log, "application used an absolute path")
        self._wrong_hosts = ThrottledWarnings(log, "request for a host that is not the session's")

    def wrong_host(self, requester: Requester, head: RequestHead, expected: bytes) -> None:
        """Respond to a request for the wrong host; ``expected`` is the host of the session, or of all sessions."""
        host, right = _shown_host(head), expected.decode("latin-1")
        self._wrong_hosts.warn(host.lower(), host=host, expected=right)
        form, close = requester.error_format(), requester.closes()
        requester.respond_with(self._responses.wrong_host(host, right, form, close=close))

    def live_referer(self, head: RequestHead) -> Route | None:
        """Return the route of the session whose page caused the request, according to its `Referer`."""
        token = referred_token(head.fields.referer, head.fields.authority) if head.fields.referer else None
        found = None if token is None else self._routes.cached(token)
        return found if isinstance(found, Route) else None

    def respond(self, requester: Requester, head: RequestHead, segment: str, status: int = 410) -> None:
        """Respond to a request whose first path segment has no route, or that has no path segment."""
        if is_issued_token(segment):
            requester.respond(status)
            return
        route = self.live_referer(head)
        if segment != _FAVICON:
            host = _shown_host(head)
            facts = {"host": host} if route is None else {"host": host, "backend": route.backend_id}
            name = host.lower() if route is None else route.backend_id
            self._absolute_paths.warn(name, **facts, path=f"/{_shown_segment(segment)}")
        form, close = requester.error_format(), requester.closes()
        requester.respond_with(self._responses.absolute_path(status, form, close=close))


def _shown_host(head: RequestHead) -> str:
    return head.fields.authority[:_HOST_LIMIT].decode("latin-1")


def _shown_segment(segment: str) -> str:
    return segment if len(segment) <= _NAME_LIMIT else f"{segment[:_SHOWN_OF_TOKEN]}…"
