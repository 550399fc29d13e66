"""How the controller's HTTP API answers: JSON, `ApiError` for whatever went wrong, CORS for the public part.

A middleware of `plane.controller.app`; handlers raise `ApiFailure` and return `json_answer`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web

from plane.controller.request_bodies import read_body
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.identity import random_name
from plane.protocol import codec
from plane.protocol.errors import ApiError, ApiErrorKind, ApiFailure, InvalidClusterName, MessageError

__all__ = ["add_cors_headers", "answer_errors", "answer_preflight", "json_answer", "json_body"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json\Z")

log = structlog.get_logger("plane.controller")


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
    body = await read_body(request)
    try:
        return codec.decode(body, kind)
    except MessageError as error:
        raise ApiFailure(422 if error.is_json else 400, ApiErrorKind.OTHER, f"request body: {error}") from None


def _error_answer(request: web.Request, failure: ApiFailure) -> web.Response:
    error = ApiError(id=random_name(), kind=failure.kind, message=failure.message)
    log.info(
        "request refused",
        error_id=error.id,
        method=request.method,
        path=request.path,
        status=failure.status,
        kind=str(error.kind),
        message=error.message,
    )
    answer = json_answer(error, failure.status)
    if failure.status == 401:
        # RFC 9110, section 11.6.1: tells how to do better.
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer. What nobody foresaw is logged with its traceback."""
    try:
        return await handler(request)
    except ApiFailure as failure:
        return _error_answer(request, failure)
    except InvalidClusterName as error:
        return _error_answer(request, ApiFailure(400, ApiErrorKind.INVALID_CLUSTER_NAME, str(error)))
    except DatabaseUnavailable as error:
        log.warning("database not available", error=str(error))
        return _error_answer(request, ApiFailure(500, ApiErrorKind.DATABASE_ERROR, str(error)))
    except Unstorable as error:
        return _error_answer(request, ApiFailure(400, ApiErrorKind.OTHER, str(error)))
    except web.HTTPRequestEntityTooLarge as error:
        return _error_answer(request, ApiFailure(413, ApiErrorKind.OTHER, error.text or error.reason))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        # As the original: no body.
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.Response(status=error.status, headers=allow)
    except web.HTTPException as error:
        return _error_answer(request, ApiFailure(error.status, ApiErrorKind.OTHER, error.reason))
    except ConnectionError:
        # The client is gone, and nobody reads this answer; its status stands in the metrics.
        return web.Response(status=499, reason="Client Closed Request")
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return _error_answer(request, ApiFailure(500, ApiErrorKind.OTHER, "internal error; the log tells more"))


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
