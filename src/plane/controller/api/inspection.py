"""Endpoints for operators: lists of nodes and backends, and the details of one backend."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import Endpoint, Parameter
from plane.controller.api.query_params import bad_parameter, flag, number
from plane.controller.api.responses import backend_not_found, json_response
from plane.controller.context import CONTEXT
from plane.database import inspection
from plane.decisions.access import Role
from plane.protocol.backend_state import BackendStatus
from plane.protocol.inspection import BackendDetail, BackendList, NodeList
from plane.protocol.names import parse_cluster_name

__all__ = ["INSPECTION_ENDPOINTS"]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
# Values of ``status`` beside the statuses themselves.
LIVE, ALL = "live", "all"


async def _list(request: web.Request) -> web.Response:
    status = request.query.get("status", LIVE)
    if status not in (LIVE, ALL, *BackendStatus):
        raise bad_parameter("status", f"must be {LIVE}, {ALL} or one of {', '.join(BackendStatus)}")
    found = await inspection.list_backends(
        request.app[CONTEXT].db,
        _cluster(request),
        status,
        _text(request, "key"),
        _text(request, "namespace"),
        _limit(request),
    )
    return json_response(found)


async def _inspect(request: web.Request) -> web.Response:
    found = await inspection.inspect_backend(request.app[CONTEXT].db, request.match_info["backend"])
    if found is None:
        raise backend_not_found()
    return json_response(found)


async def _nodes(request: web.Request) -> web.Response:
    cluster = _cluster(request)
    include_disconnected = flag(request, "all")
    db = request.app[CONTEXT].db
    return json_response(
        await inspection.list_nodes(db, cluster, include_disconnected=include_disconnected, limit=_limit(request))
    )


def _cluster(request: web.Request) -> str | None:
    cluster = request.query.get("cluster")
    return None if cluster is None else parse_cluster_name(cluster)


def _text(request: web.Request, name: str) -> str | None:
    value = request.query.get(name)
    if value is not None and "\0" in value:
        raise bad_parameter(name, "must not contain NUL")
    return value


def _limit(request: web.Request) -> int:
    return number(request, "limit", 1, MAX_LIMIT) or DEFAULT_LIMIT


_CLUSTER = Parameter("cluster", "query", str, "Only of this cluster")
_LIMIT = Parameter("limit", "query", str, f"Maximum number, 1 to {MAX_LIMIT}; default {DEFAULT_LIMIT}")

INSPECTION_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/nodes",
        handle=_nodes,
        summary="Drones, proxies and DNS servers, connected ones first",
        role=Role.READ,
        response=NodeList,
        parameters=(_CLUSTER, Parameter("all", "query", str, "true: also disconnected ones"), _LIMIT),
    ),
    Endpoint(
        method="GET",
        path="/ctrl/backends",
        handle=_list,
        summary="Backends, the latest change first. A search reads the latest 10,000 terminated ones",
        role=Role.READ,
        response=BackendList,
        parameters=(
            _CLUSTER,
            Parameter("status", "query", str, f"Only with this status, or {ALL}; default {LIVE}: not terminated"),
            Parameter("key", "query", str, "Only those spawned for a key of this name"),
            Parameter("namespace", "query", str, "Only those spawned for a key of this namespace"),
            _LIMIT,
        ),
    ),
    Endpoint(
        method="GET",
        path="/ctrl/b/{backend}",
        handle=_inspect,
        summary="Details of a backend, including its past states",
        role=Role.READ,
        response=BackendDetail,
        refusals=(404,),
    ),
)
