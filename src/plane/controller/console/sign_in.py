"""Sign-in with an API key, and sign-out. Attempts are limited per network."""

from __future__ import annotations

import asyncio
import time

import structlog
from aiohttp import web

from plane.controller.console.guard import COOKIE
from plane.controller.console.parts import ConsoleParts
from plane.controller.console.visitor import ConsoleRoute, Visitor
from plane.decisions.access import Role
from plane.decisions.console.navigation import SIGN_IN, is_secure_origin, target_after_sign_in
from plane.decisions.console.session import SESSION_LIFETIME_S
from plane.decisions.rate_limiter import RateLimiter, network_of
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["SignIn"]

# A person mistypes a few times. At this rate, a key of 20 letters would be found after 10^20 years.
ATTEMPTS_PER_S = 0.2
ATTEMPTS_AT_ONCE = 10.0

log = structlog.get_logger("plane.controller")


class SignIn:
    """The pages of one controller's sign-in."""

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts
        self._limiter = RateLimiter(ATTEMPTS_PER_S, ATTEMPTS_AT_ONCE)
        self._clock = asyncio.get_running_loop().time

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        return (
            ConsoleRoute("GET", SIGN_IN, self._form, role=None),
            ConsoleRoute("POST", SIGN_IN, self._sign_in, role=None),
            ConsoleRoute("POST", "/console/sign-out", self._sign_out, role=Role.READ),
            ConsoleRoute("GET", "/console/session", self._session, role=Role.READ),
        )

    async def _form(self, request: web.Request, visitor: Visitor) -> web.Response:
        target = target_after_sign_in(request.query.get("next", ""))
        if visitor.session is not None:
            return web.Response(status=303, headers={"Location": target})
        return self._parts.page("sign_in.html", visitor, target=target, message="")

    async def _sign_in(self, request: web.Request, visitor: Visitor) -> web.Response:
        keys = self._parts.context.api_keys
        target = target_after_sign_in(visitor.fields.get("next", ""))
        if keys is None:
            return web.Response(status=303, headers={"Location": target})
        if not self._limiter.allows(_network(request), self._clock()):
            wait_s = round(1 / ATTEMPTS_PER_S)
            raise ApiFailure(
                429,
                ApiErrorKind.OTHER,
                f"Too many attempts to sign in; try again in {wait_s} seconds",
                retry_after_s=wait_s,
            )
        record = keys.record(visitor.fields.get("key", "").strip())
        if record is None or not record.key.role.may(Role.READ):
            log.warning(
                "console sign-in refused", peer=request.remote, name=None if record is None else record.key.name
            )
            message = (
                "No API key like this is in the controller's key file."
                if record is None
                else f"The API key “{record.key.name}” has the role {record.key.role}, which has no console. "
                "Use one with the role read, connect or admin."
            )
            return self._parts.page("sign_in.html", visitor, status=403, target=target, message=message)
        log.info("console sign-in", name=record.key.name, role=str(record.key.role))
        response = web.Response(status=303, headers={"Location": target})
        response.set_cookie(
            COOKIE,
            self._parts.signer.issue(record, time.time()),
            max_age=SESSION_LIFETIME_S,
            path="/console",
            httponly=True,
            samesite="Strict",
            secure=is_secure_origin(request.headers.get("Origin")),
        )
        return response

    async def _session(self, _: web.Request, __: Visitor) -> web.Response:
        """Respond with 204 while the caller's session is valid: scripts cannot see why a stream was refused."""
        return web.Response(status=204)

    async def _sign_out(self, _: web.Request, visitor: Visitor) -> web.Response:
        log.info("console sign-out", name=visitor.name)
        response = web.Response(status=303, headers={"Location": SIGN_IN})
        response.del_cookie(COOKIE, path="/console")
        return response


def _network(request: web.Request) -> str:
    return network_of(request.remote) if request.remote else ""
