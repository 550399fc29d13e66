"""The requests that one controller serves to holders of API keys, open sockets and streams among them.

A socket or a stream may stay open for days. It ends when the key that opened it is withdrawn, or loses the role that it
needs. `plane.controller.api.auth` enters each request, and `reload_on_sighup` calls `end_withdrawn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from aiohttp import web

from plane.controller.api.api_keys import ApiKeyFile
from plane.decisions.access import ApiKeys, Role, bearer_token

__all__ = ["AdmittedRequests"]

log = structlog.get_logger("plane.controller")


class AdmittedRequests:
    """The requests that are being served."""

    def __init__(self) -> None:
        # By `id`: requests are mappings, and cannot be keys.
        self._served: dict[int, tuple[web.Request, Role]] = {}

    @contextmanager
    def enter(self, request: web.Request, needed: Role) -> Iterator[None]:
        """Keep a request, which needs this role, while the block runs."""
        self._served[id(request)] = request, needed
        try:
            yield
        finally:
            del self._served[id(request)]

    def end_withdrawn(self, keys: ApiKeyFile | ApiKeys) -> None:
        """Close the connections of requests whose key no longer has the role that they need."""
        ended = 0
        for request, needed in self._served.values():
            key = keys.find(bearer_token(request.headers.get("Authorization")) or "")
            if (key is None or not key.role.may(needed)) and request.transport is not None:
                request.transport.abort()
                ended += 1
        if ended:
            log.info("connections of withdrawn api keys closed", count=ended)
