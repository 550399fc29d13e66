"""Responses of the controller's HTTP API: JSON bodies, `ApiError` for every failure, CORS for the public part.

Handlers return `json_response` and raise `ApiFailure`; the middlewares of `plane.controller.app` do the rest.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web
from msgspec import UNSET

from plane.controller.api.request_bodies import BODY_READER
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.protocol import codec
from plane.protocol.errors import ApiError, ApiErrorKind, ApiFailure, InvalidClusterName, MessageError
from plane.random_ids import random_name
from plane.throttled_log import ThrottledWarning

__all__ = [
    "ERROR_RESPONSES",
    "ErrorResponses",
    "add_cors_headers",
    "backend_not_found",
    "decode_body",
    "handle_errors",
    "handle_preflight",
    "json_response",
    "read_json",
]

# A database that restarts or fails over is back within seconds, and the request has already waited for it.
DATABASE_RETRY_AFTER_S = 1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json\Z")

log = structlog.get_logger("plane.controller")


def json_response(body: Any, status: int = 200) -> web.Response:
    """Return ``body`` encoded as JSON."""
    return web.Response(body=codec.encode(body), status=status, content_type="application/json")


async def read_json(request: web.Request, kind: type[T]) -> T:
    """Read and decode the request's body as a ``kind``.

    Raises:
        ApiFailure: 415 not declared as JSON, 400 not JSON, 422 of another shape (names the field); and the failures of
            `BodyReader.read`.
        web.HTTPRequestEntityTooLarge
    """
    if not _JSON_TYPE.match(request.content_type):
        raise ApiFailure(415, ApiErrorKind.OTHER, "Expected request with `Content-Type: application/json`")
    return decode_body(await request.app[BODY_READER].read(request), kind)


def decode_body(body: bytes, kind: type[T]) -> T:
    """Decode a request's body as a ``kind``.

    Raises:
        ApiFailure: 400 not JSON, 422 of another shape (names the field).
    """
    try:
        return codec.decode(body, kind)
    except MessageError as error:
        raise ApiFailure(422 if error.is_json else 400, ApiErrorKind.OTHER, f"request body: {error}") from None


def backend_not_found() -> ApiFailure:
    """Return the failure for a backend that is not in the database."""
    return ApiFailure(404, ApiErrorKind.NOT_FOUND, "Backend does not exist")


class ErrorResponses:
    """Turns exceptions into responses, and logs what operators must know."""

    def __init__(self) -> None:
        self._database_unavailable = ThrottledWarning(log, "database not available")

    def response(self, error: Exception, method: str, path: str) -> web.Response:
        """Return the response to a request that ended with ``error``."""
        match error:
            case web.HTTPNotFound() | web.HTTPMethodNotAllowed():
                # Like Plane 0.5.5: no body.
                allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
                return web.Response(status=error.status, headers=allow)
            case ConnectionError():
                # The client has disconnected. The response is not sent; its status is counted in the metrics.
                return web.Response(status=499, reason="Client Closed Request")
            case _:
                return _refusal(self.failure(error, method, path), method, path)

    def failure(self, error: Exception, method: str, path: str) -> ApiFailure:
        """Return what the caller gets to know of ``error``. Unexpected errors are logged with a traceback."""
        match error:
            case ApiFailure():
                return error
            case InvalidClusterName():
                return ApiFailure(400, ApiErrorKind.INVALID_CLUSTER_NAME, str(error))
            case DatabaseUnavailable():
                self._database_unavailable.warn(error=str(error))
                return ApiFailure(503, ApiErrorKind.DATABASE_ERROR, str(error), retry_after_s=DATABASE_RETRY_AFTER_S)
            case Unstorable():
                return ApiFailure(400, ApiErrorKind.OTHER, str(error))
            case web.HTTPRequestEntityTooLarge():
                return ApiFailure(413, ApiErrorKind.OTHER, error.text or error.reason)
            case web.HTTPException():
                return ApiFailure(error.status, ApiErrorKind.OTHER, error.reason)
            case _:
                log.error("request failed", method=method, path=path, exc_info=error)
                return ApiFailure(500, ApiErrorKind.OTHER, "internal error; the controller's log has the details")


ERROR_RESPONSES: web.AppKey[ErrorResponses] = web.AppKey("error_responses", ErrorResponses)


@web.middleware
async def handle_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an exception of a handler into a response."""
    try:
        return await handler(request)
    except Exception as error:
        return request.app[ERROR_RESPONSES].response(error, request.method, request.path)


def _refusal(failure: ApiFailure, method: str, path: str) -> web.Response:
    cursor = UNSET if failure.cursor is None else failure.cursor
    error = ApiError(id=random_name(), kind=failure.kind, message=failure.message, cursor=cursor)
    log.info(
        "request refused",
        error_id=error.id,
        method=method,
        path=path,
        status=failure.status,
        kind=str(error.kind),
        message=error.message,
    )
    response = json_response(error, failure.status)
    if failure.status == 401:
        # Required by RFC 9110, section 11.6.1.
        response.headers["WWW-Authenticate"] = "Bearer"
    if failure.retry_after_s is not None:
        # RFC 9110, section 10.2.3.
        response.headers["Retry-After"] = str(failure.retry_after_s)
    return response


_VARY = "origin, access-control-request-method, access-control-request-headers"


@web.middleware
async def handle_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Allow scripts of any origin to request ``/pub/*``: GET and POST, with the header Content-Type."""
    preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if preflight and request.path.startswith("/pub/"):
        return web.Response(
            headers={
                "Access-Control-Allow-Methods": "GET,POST",
                "Access-Control-Allow-Headers": "content-type",
                "Allow": "GET,HEAD",
            }
        )
    return await handler(request)


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add CORS headers to public responses, streams and errors included (``on_response_prepare``)."""
    if request.path.startswith("/pub/"):
        response.headers["Vary"] = _VARY
        response.headers["Access-Control-Allow-Origin"] = "*"
