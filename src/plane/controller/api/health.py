"""Health of this controller and its database, and the controller's version."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import TEXT, Endpoint
from plane.controller.api.responses import json_response
from plane.controller.context import CONTEXT
from plane.database import nodes
from plane.database.pool import DatabaseUnavailable
from plane.decisions.access import Role
from plane.protocol.control_api import ControllerStatus, PublicHealth
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.version import this_version

__all__ = ["HEALTH_ENDPOINTS"]


async def _public_health(request: web.Request) -> web.Response:
    await _require_database(request)
    return json_response(PublicHealth())


async def _controller_status(request: web.Request) -> web.Response:
    await _require_database(request)
    version = this_version()
    return json_response(ControllerStatus(version=version.version, hash=version.git_hash))


async def _require_database(request: web.Request) -> None:
    try:
        await nodes.ping(request.app[CONTEXT].db)
    except DatabaseUnavailable as error:
        raise ApiFailure(500, ApiErrorKind.OTHER, "Database health check failed") from error


async def _live(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _ready(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    await nodes.ping(context.db)
    if not context.bus.listening.is_set():
        raise ApiFailure(503, ApiErrorKind.DATABASE_ERROR, "events of other controllers are not received")
    return web.Response(text="ok\n")


HEALTH_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/livez",
        handle=_live,
        summary="200 while the program runs; restart it if this does not respond",
        role=None,
        media=TEXT,
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handle=_ready,
        summary="200 while the controller can serve; otherwise 503 with the reason",
        role=None,
        media=TEXT,
        refusals=(503,),
    ),
    Endpoint(
        method="GET",
        path="/pub/health",
        handle=_public_health,
        summary="Health of the controller and its database",
        role=None,
        response=PublicHealth,
    ),
    Endpoint(
        method="GET",
        path="/ctrl/status",
        handle=_controller_status,
        summary="The controller's version",
        role=Role.READ,
        response=ControllerStatus,
    ),
)
