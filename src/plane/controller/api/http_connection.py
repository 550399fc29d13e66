"""aiohttp's side of a connection, where it differs: a request that is not HTTP is refused as any other is.

`plane.controller.server` makes one for each connection that the connect lane does not keep. aiohttp would answer in
plain text, before any middleware, and log a client's mistake as an error of the server.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.responses import error_answer
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["HttpConnection"]


class HttpConnection(web.RequestHandler):
    """A connection whose every refusal is an `ApiError`, and whose requests have ``deadlines`` for their heads."""

    __slots__ = ("_deadlines",)

    def __init__(self, *args: Any, deadlines: RequestDeadlines, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines = deadlines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A request head is awaited from now on."""
        super().connection_made(transport)
        self._deadlines.start(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; a head that begins in it must end soon."""
        transport = self.transport
        super().data_received(data)
        if transport is None:
            return
        if self._messages or self._current_request is not None:
            self._deadlines.stop(transport)
        elif data and self._waiter is not None:
            self._deadlines.start(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Await nothing more."""
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
        """The answer to what the parser refused, which ends the connection; aiohttp's to all else."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        # Further lines show the place in what was sent, which may be anything.
        reason = exc.message.strip().partition("\n")[0].rstrip(":. ")
        failure = ApiFailure(status, ApiErrorKind.OTHER, f"The request is not HTTP: {reason}")
        # Which method and path it would have been is not known.
        answer = error_answer(failure, request.method, request.path)
        answer.force_close()
        return answer
