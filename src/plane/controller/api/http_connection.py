"""aiohttp's side of the controller: the connections that `connect_fast_path` hands over, and the server's log.

Malformed requests get an `ApiError` like every other refusal. aiohttp itself would respond in plain text, before any
middleware, and log a client's mistake as an error of the server.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.responses import ErrorResponses
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["HttpConnection", "server_logger"]

log = structlog.get_logger("plane.controller")


class HttpConnection(web.RequestHandler):
    """A connection whose refusals are `ApiError`, made by ``errors``, and whose request heads have ``deadlines``."""

    __slots__ = ("_deadlines", "_errors")

    def __init__(self, *args: Any, deadlines: RequestDeadlines, errors: ErrorResponses, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines = deadlines
        self._errors = errors

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first request head."""
        super().connection_made(transport)
        self._deadlines.start(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Parse ``data``, and start or stop the deadline of a request head."""
        transport = self.transport
        super().data_received(data)
        if transport is None:
            return
        if self._messages or self._current_request is not None:
            self._deadlines.stop(transport)
        elif data and self._waiter is not None:
            self._deadlines.start(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the deadline."""
        if self.transport is not None:
            self._deadlines.stop(self.transport)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a request that the parser refused, and close the connection.

        Else aiohttp's response.
        """
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        # Further lines quote the request, which may contain anything.
        reason = exc.message.strip().partition("\n")[0].rstrip(":. ")
        failure = ApiFailure(status, ApiErrorKind.OTHER, f"The request is not HTTP: {reason}")
        # The real method and path are unknown.
        response = self._errors.response(failure, request.method, request.path)
        response.force_close()
        return response


def server_logger() -> logging.Logger:
    """Return the logger for aiohttp's server."""
    logger = logging.Logger("plane.controller.http", logging.WARNING)
    logger.addHandler(_Handler())
    return logger


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.error("error in the HTTP server", detail=record.getMessage(), exc_info=record.exc_info)
