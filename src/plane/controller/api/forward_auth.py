"""Asks another server whether a request may pass (``--forward-auth URL``). Rule: page 2, "Forward auth".

Called by `plane.controller.api.auth` before the request is looked at, so that a WebSocket is refused before its
upgrade.
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

__all__ = ["ForwardAuth", "forward_auth"]

# Questions at once; further requests wait for one of them.
CONNECTIONS = 100
# A request fails with 502 when there is no answer by then, the wait for a connection included.
ANSWER_LIMIT_S = 5.0
# What the client did not send, the server is not to see.
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

log = structlog.get_logger("plane.controller")


class ForwardAuth:
    """Questions to one server over kept connections."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that may not pass; None if it may. Texts are the original's.

        Raises:
            ApiFailure: 400, the path has no form that every server reads alike.
        """
        try:
            # As aiohttp's router has it.
            path = routed_path(request.rel_url.path_safe)
        except AmbiguousPath as error:
            raise ApiFailure(400, ApiErrorKind.OTHER, str(error)) from error
        headers = headers_to_forward(request.headers.items(), path)
        try:
            async with self._http.request(
                request.method, self._url, headers=headers, skip_auto_headers=_OURS, allow_redirects=False
            ) as answer:
                allowed = 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("forward auth does not answer", url=self._url, error=str(error) or type(error).__name__)
            return web.Response(status=502, text="Error forwarding auth.")
        if not allowed:
            log.info("refused by forward auth", method=request.method, path=request.path, status=answer.status)
            return web.Response(status=401, text="Unauthorized")
        return None


@asynccontextmanager
async def forward_auth(url: str) -> AsyncIterator[ForwardAuth]:
    """Questions to ``url``, while the block runs."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield ForwardAuth(url, http)
