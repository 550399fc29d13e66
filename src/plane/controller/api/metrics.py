"""The endpoint that tells what a backend uses (A15)."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_answer, no_such_backend
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
            raise no_such_backend()
        raise ApiFailure(404, ApiErrorKind.NOT_FOUND, "No metrics of this backend were heard lately")
    return json_answer(usage)


METRICS_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/b/{backend}/metrics",
        also=("/ctrl/c/{cluster}/b/{backend}/metrics",),
        handle=_metrics,
        summary="What a backend uses, as its drone last said",
        role=Role.READ,
        answer=BackendUsage,
        refusals=(404,),
    ),
)
