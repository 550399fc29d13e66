"""Authorization of the controller's HTTP API.

Requests of foreign web pages are refused; then API keys and forward auth are checked. The public API requires neither.
Roles are decided in `plane.decisions.access`; each `Endpoint` names the role it requires. A request must pass both API
keys and forward auth where both are configured. `admit` is a middleware of `plane.controller.app`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog
from aiohttp import web

from plane.controller.api.api_keys import ApiKeyFile
from plane.controller.api.endpoints import Handler
from plane.controller.context import CONTEXT
from plane.decisions.access import ApiKey, ApiKeys, Role, bearer_token
from plane.decisions.http.request_source import RequestSource, SourceRules, host_name, refusal
from plane.protocol.addresses import is_loopback
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.settings import ControllerSettings

__all__ = [
    "CALLER",
    "ROLES",
    "SELF_GUARDED",
    "admit",
    "refuse_foreign_pages",
    "request_source",
    "require_role",
    "source_rules",
    "warn_if_open",
]

# The API key of a request that `admit` has passed; None where no key is required.
CALLER: web.RequestKey[ApiKey | None] = web.RequestKey("caller")

ROLES: web.AppKey[Mapping[Handler, Role | None]] = web.AppKey("roles")
# Handlers that admit their callers themselves: the console's (`plane.controller.console.guard`).
SELF_GUARDED: web.AppKey[Collection[Handler]] = web.AppKey("self_guarded")

# The public API, also for scripts of any web page; and probes, which use whatever name they reach the controller by.
PUBLIC_PATHS = ("/pub/", "/livez", "/readyz")

log = structlog.get_logger("plane.controller")


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pass a request to its handler if the caller is authorized."""
    if request.match_info.handler in request.app[SELF_GUARDED]:
        return await handler(request)
    context = request.app[CONTEXT]
    needed = _needed(request)
    if not request.path.startswith(PUBLIC_PATHS):
        refuse_foreign_pages(request_source(request), context.source_rules, page=needed is None)
    if needed is None:
        return await handler(request)
    if context.api_keys is not None:
        request[CALLER] = require_role(context.api_keys, request.headers.get("Authorization"), needed)
    with context.admitted.enter(request, needed):
        if context.forward_auth is not None and (refusal := await context.forward_auth.refusal(request)) is not None:
            return refusal
        return await handler(request)


def _needed(request: web.Request) -> Role | None:
    """Return the role that a request requires; None for public endpoints.

    Unknown paths require the role ``read``, so that only authorized callers learn what does not exist.
    """
    roles = request.app[ROLES]
    handler = request.match_info.handler
    if handler in roles:
        return roles[handler]
    return None if request.path.startswith(PUBLIC_PATHS) else Role.READ


def request_source(request: web.Request) -> RequestSource:
    """Return the fields of a request about its origin."""
    return RequestSource(*(_joined(request, name) for name in ("Host", "Origin", "Sec-Fetch-Site")))


def _joined(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, None)
    return None if values is None else ",".join(values)


def refuse_foreign_pages(source: RequestSource, rules: SourceRules, *, page: bool = False) -> None:
    """Refuse a request that a web page of another origin has caused (`request_source.refusal`).

    Raises:
        ApiFailure: 403.
    """
    if (reason := refusal(source, rules, page=page)) is not None:
        raise ApiFailure(403, ApiErrorKind.OTHER, reason)


def source_rules(settings: ControllerSettings) -> SourceRules:
    """Return the hosts and origins that belong to the controller."""
    return SourceRules(
        public_url=settings.controller_url,
        allowed_hosts=frozenset(name for host in settings.allowed_hosts if (name := host_name(host))),
        checks_host=not _has_keys(settings) and settings.forward_auth is None,
    )


def require_role(keys: ApiKeyFile | ApiKeys, authorization: str | None, needed: Role) -> ApiKey:
    """Return the API key in ``authorization``; refuse a request unless the key has the role ``needed``.

    Raises:
        ApiFailure: 401 for a missing or unknown key, 403 for another role.
    """
    token = bearer_token(authorization)
    if token is None:
        raise ApiFailure(401, ApiErrorKind.OTHER, "an API key is required: send it as `Authorization: Bearer KEY`")
    key = keys.find(token)
    if key is None:
        raise ApiFailure(
            401, ApiErrorKind.OTHER, "unknown API key; the controller's --api-key-file does not have it (any more)"
        )
    if not key.role.may(needed):
        raise ApiFailure(
            403,
            ApiErrorKind.OTHER,
            f"the API key {key.name!r} has the role {key.role}; this requires the role {needed}",
        )
    return key


def warn_if_open(settings: ControllerSettings) -> None:
    """Log a warning if everyone who can reach this controller controls the cluster."""
    if _has_keys(settings) or settings.forward_auth is not None or is_loopback(settings.host):
        return
    log.warning(
        "control API is open to everyone who can reach this address; restrict it with --api-key-file or --forward-auth",
        host=settings.host,
    )


def _has_keys(settings: ControllerSettings) -> bool:
    """Return whether callers of the control API need a key."""
    return settings.api_key_file is not None or settings.fixed_api_keys is not None
