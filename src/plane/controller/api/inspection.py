"""Endpoints for operators: which nodes and backends there are, and all that is known of one."""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.endpoints import Endpoint, Parameter
from plane.controller.api.query_params import bad_parameter, flag, number
from plane.controller.api.responses import json_answer, no_such_backend
from plane.controller.context import CONTEXT
from plane.database import inspection
from plane.decisions.access import Role
from plane.protocol.backend_state import BackendStatus
from plane.protocol.inspection import BackendDetail, BackendList, NodeList
from plane.protocol.names import parse_cluster_name

__all__ = ["INSPECTION_ENDPOINTS"]

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000
# Beside the statuses themselves.
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
    return json_answer(found)


async def _inspect(request: web.Request) -> web.Response:
    found = await inspection.inspect_backend(request.app[CONTEXT].db, request.match_info["backend"])
    if found is None:
        raise no_such_backend()
    return json_answer(found)


async def _nodes(request: web.Request) -> web.Response:
    cluster = _cluster(request)
    also_gone = flag(request, "all")
    db = request.app[CONTEXT].db
    return json_answer(await inspection.list_nodes(db, cluster, also_gone=also_gone, limit=_limit(request)))


def _cluster(request: web.Request) -> str | None:
    cluster = request.query.get("cluster")
    return None if cluster is None else parse_cluster_name(cluster)


def _text(request: web.Request, name: str) -> str | None:
    value = request.query.get(name)
    if value is not None and "\0" in value:
        raise bad_parameter(name, "must not contain NUL")
    return value


def _limit(request: web.Request) -> int:
    return number(request, "limit", 1, LARGEST_LIMIT) or DEFAULT_LIMIT


_CLUSTER = Parameter("cluster", "query", str, "Only those of this cluster")
_LIMIT = Parameter("limit", "query", str, f"How many at most, 1 to {LARGEST_LIMIT}; default {DEFAULT_LIMIT}")

INSPECTION_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/nodes",
        handle=_nodes,
        summary="Drones, proxies and DNS servers, connected ones first",
        role=Role.READ,
        answer=NodeList,
        parameters=(_CLUSTER, Parameter("all", "query", str, "true: also those without a connection"), _LIMIT),
    ),
    Endpoint(
        method="GET",
        path="/ctrl/backends",
        handle=_list,
        summary="Backends, the latest change first",
        role=Role.READ,
        answer=BackendList,
        parameters=(
            _CLUSTER,
            Parameter("status", "query", str, f"Only those with this status, or {ALL}; default {LIVE}: not terminated"),
            Parameter("key", "query", str, "Only those started for a key of this name"),
            Parameter("namespace", "query", str, "Only those started for a key of this namespace"),
            _LIMIT,
        ),
    ),
    Endpoint(
        method="GET",
        path="/ctrl/b/{backend}",
        handle=_inspect,
        summary="All that is known of a backend, its past states included",
        role=Role.READ,
        answer=BackendDetail,
        refusals=(404,),
    ),
)
