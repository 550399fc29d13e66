"""Revokes a user's connection tokens: deletes them from the database and notifies every proxy."""

from __future__ import annotations

import structlog
from aiohttp import web

from plane.controller.api.audit import described
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_response, read_json
from plane.controller.context import CONTEXT
from plane.database import tokens
from plane.database.event_feed import record_call
from plane.decisions.access import Role
from plane.protocol.control_api import RevokeRequest
from plane.protocol.event_feed import EventType

__all__ = ["REVOCATION_ENDPOINTS", "revoke"]

log = structlog.get_logger("plane.controller")


async def _revoke(request: web.Request) -> web.Response:
    body = await read_json(request, RevokeRequest)
    await revoke(request, body.backend_id, body.user)
    return json_response("Token revoked successfully")


async def revoke(request: web.Request, backend_id: str, user: str) -> int:
    """Revoke all tokens of a user for a backend, record the call, and return the number of tokens.

    Raises:
        DatabaseUnavailable
    """
    async with request.app[CONTEXT].db.transaction() as transaction:
        count = await tokens.revoke(transaction, backend_id, user)
        call = described(request, backend=backend_id, user=user, tokens=count)
        await record_call(transaction, EventType.ADMIN_REVOKE, call)
    log.info("tokens revoked", backend=backend_id, count=count)
    return count


REVOCATION_ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/ctrl/b/revoke",
        aliases=("/ctrl/revoke",),
        handle=_revoke,
        summary="Revoke all tokens of a user for a backend, and close the connections opened with them",
        role=Role.CONNECT,
        body=RevokeRequest,
        response=str,
    ),
)
