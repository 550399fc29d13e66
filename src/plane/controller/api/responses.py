"""How the controller's HTTP API answers: JSON, `ApiError` for whatever went wrong, CORS for the public part.

A middleware of `plane.controller.app`; handlers raise `ApiFailure` and return `json_answer`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web

from plane.controller.api.request_bodies import read_body
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.protocol import codec
from plane.protocol.errors import ApiError, ApiErrorKind, ApiFailure, InvalidClusterName, MessageError
from plane.random_ids import random_name
from plane.throttled_log import ThrottledWarning

__all__ = [
    "add_cors_headers",
    "answer_errors",
    "answer_preflight",
    "decoded_body",
    "error_answer",
    "json_answer",
    "json_body",
    "no_such_backend",
]

# A database that restarts or fails over is back within seconds; the request has waited for it already.
DATABASE_RETRY_AFTER_S = 1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json\Z")

log = structlog.get_logger("plane.controller")

_DATABASE_AWAY = ThrottledWarning(log, "database not available")


def json_answer(body: Any, status: int = 200) -> web.Response:
    """``body`` as JSON."""
    return web.Response(body=codec.encode(body), status=status, content_type="application/json")


async def json_body(request: web.Request, kind: type[T]) -> T:
    """Read the request's body as one ``kind``.

    Raises:
        ApiFailure: 415 not declared as JSON, 400 not JSON, 422 of another shape (names the field); what `read_body`
            raises.
        web.HTTPRequestEntityTooLarge
    """
    if not _JSON_TYPE.match(request.content_type):
        raise ApiFailure(415, ApiErrorKind.OTHER, "Expected request with `Content-Type: application/json`")
    return decoded_body(await read_body(request), kind)


def decoded_body(body: bytes, kind: type[T]) -> T:
    """A request's body as one ``kind``.

    Raises:
        ApiFailure: 400 not JSON, 422 of another shape (names the field).
    """
    try:
        return codec.decode(body, kind)
    except MessageError as error:
        raise ApiFailure(422 if error.is_json else 400, ApiErrorKind.OTHER, f"request body: {error}") from None


def no_such_backend() -> ApiFailure:
    """To be raised for a backend that the database does not know."""
    return ApiFailure(404, ApiErrorKind.NOT_FOUND, "Backend does not exist")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer."""
    try:
        return await handler(request)
    except Exception as error:
        return error_answer(error, request.method, request.path)


def error_answer(error: Exception, method: str, path: str) -> web.Response:
    """The answer to a request that ``error`` ended. What nobody foresaw is logged with its traceback."""
    match error:
        case ApiFailure():
            failure = error
        case InvalidClusterName():
            failure = ApiFailure(400, ApiErrorKind.INVALID_CLUSTER_NAME, str(error))
        case DatabaseUnavailable():
            _DATABASE_AWAY.warn(error=str(error))
            failure = ApiFailure(503, ApiErrorKind.DATABASE_ERROR, str(error), retry_after_s=DATABASE_RETRY_AFTER_S)
        case Unstorable():
            failure = ApiFailure(400, ApiErrorKind.OTHER, str(error))
        case web.HTTPRequestEntityTooLarge():
            failure = ApiFailure(413, ApiErrorKind.OTHER, error.text or error.reason)
        case web.HTTPNotFound() | web.HTTPMethodNotAllowed():
            # As the original: no body.
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return web.Response(status=error.status, headers=allow)
        case web.HTTPException():
            failure = ApiFailure(error.status, ApiErrorKind.OTHER, error.reason)
        case ConnectionError():
            # The client is gone, and nobody reads this answer; its status stands in the metrics.
            return web.Response(status=499, reason="Client Closed Request")
        case _:
            log.error("request failed", method=method, path=path, exc_info=error)
            failure = ApiFailure(500, ApiErrorKind.OTHER, "internal error; the log tells more")
    return _refusal(failure, method, path)


def _refusal(failure: ApiFailure, method: str, path: str) -> web.Response:
    error = ApiError(id=random_name(), kind=failure.kind, message=failure.message)
    log.info(
        "request refused",
        error_id=error.id,
        method=method,
        path=path,
        status=failure.status,
        kind=str(error.kind),
        message=error.message,
    )
    answer = json_answer(error, failure.status)
    if failure.status == 401:
        # RFC 9110, section 11.6.1: tells how to do better.
        answer.headers["WWW-Authenticate"] = "Bearer"
    if failure.retry_after_s is not None:
        # RFC 9110, section 10.2.3.
        answer.headers["Retry-After"] = str(failure.retry_after_s)
    return answer


_VARY = "origin, access-control-request-method, access-control-request-headers"


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """``/pub/*`` may be asked by scripts of any origin: GET and POST, header Content-Type."""
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
    """For `web.Application.on_response_prepare`, so that streams and errors have the headers too."""
    if request.path.startswith("/pub/"):
        response.headers["Vary"] = _VARY
        response.headers["Access-Control-Allow-Origin"] = "*"
