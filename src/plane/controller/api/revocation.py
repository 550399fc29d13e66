"""Takes back the connection tokens of a user: the database forgets them, and every proxy is told (A3)."""

from __future__ import annotations

import structlog
from aiohttp import web

from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_answer, json_body
from plane.controller.context import CONTEXT
from plane.database import tokens
from plane.decisions.access import Role
from plane.protocol.control_api import RevokeRequest

__all__ = ["REVOCATION_ENDPOINTS"]

log = structlog.get_logger("plane.controller")


async def _revoke(request: web.Request) -> web.Response:
    body = await json_body(request, RevokeRequest)
    count = await tokens.revoke(request.app[CONTEXT].db, body.backend_id, body.user)
    log.info("tokens revoked", backend=body.backend_id, count=count)
    return json_answer("Token revoked successfully")


REVOCATION_ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/ctrl/b/revoke",
        also=("/ctrl/revoke",),
        handle=_revoke,
        summary="Revoke all tokens of a user for a backend; connections opened with them are cut",
        role=Role.CONNECT,
        body=RevokeRequest,
        answer=str,
    ),
)
