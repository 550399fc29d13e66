"""Who gets past the controller's door: API keys and forward auth, for everything but the public API.

Roles are decided in `plane.decisions.access`; each `Endpoint` names the one it needs. Where both ways are configured
a request must pass both. A middleware of `plane.controller.app`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import structlog
from aiohttp import web

from plane.controller.api_keys import ApiKeyFile
from plane.controller.context import CONTEXT
from plane.controller.endpoints import Handler
from plane.decisions.access import Role, bearer_token
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.settings import ControllerSettings

__all__ = ["ROLES", "admit", "require_role", "warn_if_open"]

ROLES: web.AppKey[Mapping[Handler, Role | None]] = web.AppKey("roles")

log = structlog.get_logger("plane.controller")


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request pass to its handler if its bearer may call it."""
    context = request.app[CONTEXT]
    needed = _needed(request)
    if needed is None:
        return await handler(request)
    if context.api_keys is not None:
        require_role(context.api_keys, request.headers.get("Authorization"), needed)
    if context.forward_auth is not None and (refusal := await context.forward_auth.refusal(request)) is not None:
        return refusal
    return await handler(request)


def _needed(request: web.Request) -> Role | None:
    """The role that a request needs, None for the public API. What does not exist is told to readers only."""
    roles = request.app[ROLES]
    handler = request.match_info.handler
    if handler in roles:
        return roles[handler]
    return None if request.path.startswith("/pub/") else Role.READ


def require_role(keys: ApiKeyFile, authorization: str | None, needed: Role) -> None:
    """Let a request with this ``Authorization`` pass if its bearer has the role ``needed``.

    Raises:
        ApiFailure: 401 no key or an unknown one, 403 another role.
    """
    token = bearer_token(authorization)
    if token is None:
        raise ApiFailure(401, ApiErrorKind.OTHER, "an API key is needed: send it as `Authorization: Bearer KEY`")
    key = keys.find(token)
    if key is None:
        raise ApiFailure(401, ApiErrorKind.OTHER, "the API key is not, or no longer, one of this controller's")
    if not key.role.may(needed):
        raise ApiFailure(
            403, ApiErrorKind.OTHER, f"the API key {key.name!r} has the role {key.role}; this needs the role {needed}"
        )


def warn_if_open(settings: ControllerSettings) -> None:
    """Say loudly that everybody who reaches this controller controls the cluster, if that is so."""
    if settings.api_key_file is not None or settings.forward_auth is not None or _is_loopback(settings.host):
        return
    log.warning(
        "THE CONTROL API IS OPEN to everybody who reaches this address; close it with --api-key-file or --forward-auth",
        host=settings.host,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
