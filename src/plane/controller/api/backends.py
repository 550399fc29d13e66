"""Endpoints of one backend: its status and its termination. The stream of its states is in `status_stream`."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.audit import described
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import backend_not_found, json_response
from plane.controller.context import CONTEXT
from plane.controller.termination import terminate_backends
from plane.database import backends
from plane.database.event_feed import record_call
from plane.decisions.access import Role
from plane.protocol.backend_state import (
    BackendStatus,
    BackendStatusStreamEntry,
    TerminationKind,
    TerminationReason,
    public_entry,
)
from plane.protocol.event_feed import EventType

__all__ = ["BACKEND_ENDPOINTS", "terminate"]


async def _status(request: web.Request) -> web.Response:
    found = await backends.state_now(request.app[CONTEXT].db, request.match_info["backend"])
    if found is None:
        raise backend_not_found()
    row, _ = found
    return json_response(public_entry(row.state, row.time))


async def _soft_terminate(request: web.Request) -> web.Response:
    await terminate(request, TerminationKind.SOFT)
    return json_response(None)


async def _hard_terminate(request: web.Request) -> web.Response:
    await terminate(request, TerminationKind.HARD)
    return json_response(None)


async def terminate(request: web.Request, kind: TerminationKind) -> bool:
    """Order the drone of the path's backend to terminate it, and record the call. False: it has already ended.

    Raises:
        ApiFailure: 404.
        DatabaseUnavailable
    """
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    found = await backends.state_now(context.db, backend_id)
    if found is None:
        raise backend_not_found()
    row, drone_id = found
    if row.state.status is BackendStatus.TERMINATED:
        return False
    async with context.db.transaction() as transaction:
        await terminate_backends(transaction, [(backend_id, drone_id)], kind, TerminationReason.EXTERNAL)
        call = described(request, backend=backend_id, kind=kind)
        await record_call(transaction, EventType.ADMIN_TERMINATE, call)
    return True


BACKEND_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/pub/b/{backend}/status",
        aliases=("/pub/c/{cluster}/b/{backend}/status",),
        handle=_status,
        summary="The status of a backend",
        role=None,
        response=BackendStatusStreamEntry,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/b/{backend}/soft-terminate",
        aliases=("/ctrl/c/{cluster}/b/{backend}/soft-terminate",),
        handle=_soft_terminate,
        summary="Terminate a backend gracefully",
        role=Role.CONNECT,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/b/{backend}/hard-terminate",
        aliases=("/ctrl/c/{cluster}/b/{backend}/hard-terminate",),
        handle=_hard_terminate,
        summary="Kill a backend",
        role=Role.CONNECT,
        refusals=(404,),
    ),
)
