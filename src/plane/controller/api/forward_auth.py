"""Forward auth: another server decides whether a request is allowed (``--forward-auth URL``).

Called by `plane.controller.api.auth` before the handler, so that a WebSocket is refused before its upgrade. The
requests to the server are described in ``docs/reference/protocol/control-api.md``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import structlog
from aiohttp import web

from plane.decisions.access import headers_to_forward
from plane.decisions.routing.routed_path import AmbiguousPath, routed_path
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.transport.request_errors import request_error_reason

__all__ = ["ForwardAuth", "connect_forward_auth"]

# Concurrent requests to the server; further ones wait.
MAX_CONNECTIONS = 100
# Headers that the client did not send must not be added.
_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

log = structlog.get_logger("plane.controller")


class ForwardAuth:
    """A client of one forward-auth server, with persistent connections."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def refusal(self, request: web.Request) -> web.Response | None:
        """Return the response to a request that is refused; None if it is allowed. Texts are those of Plane 0.5.5.

        Raises:
            ApiFailure: 400, servers would interpret the path differently.
        """
        try:
            # The form that aiohttp's router uses.
            path = routed_path(request.rel_url.path_safe)
        except AmbiguousPath as error:
            raise ApiFailure(400, ApiErrorKind.OTHER, str(error)) from error
        headers = headers_to_forward(request.headers.items(), path)
        try:
            async with self._http.request(
                request.method, self._url, headers=headers, skip_auto_headers=_AUTOMATIC_HEADERS, allow_redirects=False
            ) as response:
                allowed = 200 <= response.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("forward auth server does not respond", url=self._url, error=request_error_reason(error))
            return web.Response(status=502, text="Error forwarding auth.")
        if not allowed:
            log.info(
                "request refused by forward auth", method=request.method, path=request.path, status=response.status
            )
            return web.Response(status=401, text="Unauthorized")
        return None


@asynccontextmanager
async def connect_forward_auth(url: str, timeout_s: float) -> AsyncIterator[ForwardAuth]:
    """Yield a client of the server at ``url``; its connections are closed when the block ends.

    A request fails with 502 if there is no response within ``timeout_s``, including the wait for a connection.
    """
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield ForwardAuth(url, http)
