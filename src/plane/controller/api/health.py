"""Health of this controller and its database, and the controller's version."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import Endpoint
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


HEALTH_ENDPOINTS = (
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
