"""Admits callers of the console, and turns failures into pages.

Every handler of the console is wrapped by `Guard.admit`, in place of `plane.controller.api.auth.admit`: browsers send a
cookie and no ``Authorization``. What is decided: `plane.decisions.console.session` and
`plane.decisions.http.request_source`.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from plane.controller.api.auth import CALLER, refuse_foreign_pages, request_source
from plane.controller.api.endpoints import Handler
from plane.controller.api.request_bodies import BODY_READER
from plane.controller.api.responses import ErrorResponses
from plane.controller.console.rendering import Renderer
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.controller.context import Context
from plane.decisions.console.navigation import SIGN_IN, is_link_from_elsewhere, is_own_machine
from plane.decisions.console.session import Session, SessionSigner
from plane.protocol.errors import ApiErrorKind, ApiFailure, PlaneError

__all__ = ["COOKIE", "Guard", "add_security_headers"]

COOKIE = "plane_console"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
MAX_FIELDS = 20

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    # With no-referrer, browsers would send `Origin: null` with forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class _SignInRequired(PlaneError):
    """The caller has no session (any more)."""


class Guard:
    """Admits the callers of one controller's console."""

    def __init__(self, context: Context, signer: SessionSigner, renderer: Renderer, errors: ErrorResponses) -> None:
        self._context = context
        self._signer = signer
        self._renderer = renderer
        self._errors = errors

    def wrap(self, route: ConsoleRoute) -> Handler:
        """Return the handler of ``route`` for aiohttp."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, route)

        return handle

    def session(self, request: web.Request) -> Session | None:
        """Return the caller's session; None without a valid one. Also called while a stream is open."""
        now = time.time()
        if self._context.api_keys is None:
            return self._signer.without_keys(now)
        cookie = request.cookies.get(COOKIE)
        return None if cookie is None else self._signer.verify(cookie, self._context.api_keys, now)

    async def _handle(self, request: web.Request, route: ConsoleRoute) -> web.StreamResponse:
        visitor = Visitor(None)
        try:
            if is_link_from_elsewhere(
                request.method, *(request.headers.get(f"Sec-Fetch-{name}") for name in ("Site", "Mode", "Dest"))
            ):
                return self._renderer.page("continue.html", visitor, address=request.path_qs)
            self._refuse_others(request)
            if self._context.forward_auth is not None:
                refusal = await self._context.forward_auth.refusal(request)
                if refusal is not None:
                    return refusal
            visitor = Visitor(self.session(request), signs_in=self._context.api_keys is not None)
            if request.method == "POST":
                visitor = replace(visitor, fields=await _fields(request))
            _require(request, route, visitor)
            # Named in the audit log, like the caller of the API.
            signed_in = visitor.session is not None and visitor.signs_in
            request[CALLER] = visitor.session.key if signed_in and visitor.session else None
            return await route.handle(request, visitor)
        except _SignInRequired:
            return _to_sign_in(request)
        except ConnectionError:
            raise
        except Exception as error:
            failure = self._errors.failure(error, request.method, request.path)
            if "HX-Request" in request.headers:
                response = self._renderer.notice(failure.message, status=failure.status)
            else:
                response = self._renderer.page("error.html", visitor, status=failure.status, message=failure.message)
            if failure.retry_after_s is not None:
                response.headers["Retry-After"] = str(failure.retry_after_s)
            return response

    def _refuse_others(self, request: web.Request) -> None:
        """Refuse requests of foreign pages, and without API keys those of other machines.

        Raises:
            ApiFailure: 403.
        """
        without_keys = self._context.api_keys is None
        refuse_foreign_pages(request_source(request), self._context.source_rules, page=without_keys)
        if without_keys and not is_own_machine(request.remote):
            raise ApiFailure(
                403,
                ApiErrorKind.OTHER,
                "Without API keys the console serves its own machine only. Start the controller with --api-key-file, "
                "or connect through `ssh -L`",
            )


def _require(request: web.Request, route: ConsoleRoute, visitor: Visitor) -> None:
    """Refuse a caller without the role, and a change that no page of the console has sent.

    Raises:
        ApiFailure: 403.
        _SignInRequired
    """
    is_change = request.method == "POST"
    if is_change and "Origin" not in request.headers:
        # `refuse_foreign_pages` has compared it.
        raise ApiFailure(403, ApiErrorKind.OTHER, "Only the console's own pages may send this")
    if route.role is None:
        return
    if visitor.session is None:
        raise _SignInRequired("no valid session")
    if not visitor.may(route.role):
        key = visitor.session.key
        raise ApiFailure(
            403,
            ApiErrorKind.OTHER,
            f"The API key {key.name!r} has the role {key.role}; this requires the role {route.role}",
        )
    if is_change:
        token = request.headers.get(CSRF_HEADER) or visitor.fields.get(CSRF_FIELD, "")
        if not hmac.compare_digest(token.encode(), visitor.session.csrf_token.encode()):
            raise ApiFailure(403, ApiErrorKind.OTHER, "This page belongs to an ended session; load it again")


async def _fields(request: web.Request) -> dict[str, str]:
    """Return the fields of a form, the last one of each name.

    Raises:
        ApiFailure: 400 and those of `BodyReader.read`.
    """
    body = await request.app[BODY_READER].read(request)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        raise ApiFailure(400, ApiErrorKind.OTHER, "The body must be the fields of a form of the console") from None


def _to_sign_in(request: web.Request) -> web.Response:
    """Return the response that leads a person to the sign-in, and back to the page afterwards."""
    if request.headers.get("Accept", "").startswith("text/event-stream"):
        return web.Response(status=401, text="The session has ended")
    wanted = request.path_qs if request.method == "GET" else "/console"
    address = f"{SIGN_IN}?{urlencode({'next': wanted})}"
    if "HX-Request" in request.headers:
        return web.Response(status=401, headers={"HX-Redirect": SIGN_IN})
    return web.Response(status=303, headers={"Location": address})


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of the console's pages, streams and errors included (``on_response_prepare``)."""
    if request.path == "/console" or request.path.startswith("/console/"):
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
