"""Endpoints of a cluster: its state, and draining of its drones."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.audit import described
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.responses import json_response
from plane.controller.context import CONTEXT
from plane.database import nodes
from plane.database.event_feed import record_call
from plane.decisions.access import Role
from plane.protocol.control_api import ClusterState, DrainResult
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.event_feed import EventType
from plane.protocol.names import parse_cluster_name

__all__ = ["CLUSTER_ENDPOINTS", "set_draining"]


async def _state(request: web.Request) -> web.Response:
    cluster = parse_cluster_name(request.match_info["cluster"])
    return json_response(await nodes.cluster_state(request.app[CONTEXT].db, cluster))


async def _drain(request: web.Request) -> web.Response:
    return json_response(DrainResult(updated=await set_draining(request, draining=True)))


async def _undrain(request: web.Request) -> web.Response:
    return json_response(DrainResult(updated=await set_draining(request, draining=False)))


async def set_draining(request: web.Request, *, draining: bool) -> bool:
    """Set whether the path's drone gets backends, record the call, and return whether this changed anything.

    Raises:
        ApiFailure: 404.
        InvalidClusterName, DatabaseUnavailable
    """
    cluster = parse_cluster_name(request.match_info["cluster"])
    drone = request.match_info["drone"]
    async with request.app[CONTEXT].db.transaction() as transaction:
        updated = await nodes.set_draining(transaction, cluster, drone, draining)
        if updated is None:
            raise ApiFailure(404, ApiErrorKind.NOT_FOUND, "Drone does not exist")
        kind = EventType.ADMIN_DRAIN if draining else EventType.ADMIN_UNDRAIN
        await record_call(transaction, kind, described(request), cluster=cluster, drone=drone)
    return updated


CLUSTER_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/c/{cluster}/state",
        handle=_state,
        summary="The connected drones and proxies of a cluster",
        role=Role.READ,
        response=ClusterState,
    ),
    Endpoint(
        method="POST",
        path="/ctrl/c/{cluster}/d/{drone}/drain",
        handle=_drain,
        summary="Assign no more backends to a drone; its existing backends keep running",
        role=Role.ADMIN,
        response=DrainResult,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/c/{cluster}/d/{drone}/undrain",
        handle=_undrain,
        summary="Assign backends to a drone again",
        role=Role.ADMIN,
        response=DrainResult,
        refusals=(404,),
    ),
)
