"""The endpoint of a backend's resource usage."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import backend_not_found, json_response
from plane.controller.context import CONTEXT
from plane.database import backends
from plane.decisions.access import Role
from plane.protocol.control_api import BackendUsage
from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["METRICS_ENDPOINTS"]


async def _metrics(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    usage = context.metrics.of(backend_id)
    if usage is None:
        if await backends.state_now(context.db, backend_id) is None:
            raise backend_not_found()
        raise ApiFailure(404, ApiErrorKind.NOT_FOUND, "No recent metrics for this backend")
    return json_response(usage)


METRICS_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/b/{backend}/metrics",
        aliases=("/ctrl/c/{cluster}/b/{backend}/metrics",),
        handle=_metrics,
        summary="The latest resource usage of a backend",
        role=Role.READ,
        response=BackendUsage,
        refusals=(404,),
    ),
)
