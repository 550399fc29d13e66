"""The controller's application: all endpoints of the HTTP API, and what every request passes through.

Page 2, "HTTP endpoints of the controller".
"""

from __future__ import annotations

from aiohttp import web

from plane.controller.api.auth import ROLES, admit
from plane.controller.api.backends import BACKEND_ENDPOINTS
from plane.controller.api.cluster import CLUSTER_ENDPOINTS
from plane.controller.api.connect import CONNECT_ENDPOINTS
from plane.controller.api.endpoints import Endpoint, Handler
from plane.controller.api.front_page import FRONT_PAGE_HANDLERS, front_page_routes
from plane.controller.api.health import HEALTH_ENDPOINTS
from plane.controller.api.inspection import INSPECTION_ENDPOINTS
from plane.controller.api.logs import LOG_ENDPOINTS
from plane.controller.api.metrics import METRICS_ENDPOINTS
from plane.controller.api.openapi import describe
from plane.controller.api.prometheus import INSTRUMENTS, PROMETHEUS_ENDPOINTS, Instruments, count_requests
from plane.controller.api.responses import add_cors_headers, answer_errors, answer_preflight
from plane.controller.api.revocation import REVOCATION_ENDPOINTS
from plane.controller.api.status_stream import STATUS_STREAM_ENDPOINTS
from plane.controller.context import CONTEXT, Context
from plane.controller.nodes.dns import DNS_SOCKET_ENDPOINTS
from plane.controller.nodes.drone import DRONE_SOCKET_ENDPOINTS
from plane.controller.nodes.proxy import PROXY_SOCKET_ENDPOINTS
from plane.decisions.access import Role
from plane.protocol import codec

__all__ = ["all_endpoints", "make_app"]

# Far above any sensible connect request; large files belong into the image or a mount.
BODY_LIMIT_BYTES = 1024 * 1024


def all_endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint of the HTTP API, its own description excepted."""
    return (
        *HEALTH_ENDPOINTS,
        *CONNECT_ENDPOINTS,
        *BACKEND_ENDPOINTS,
        *STATUS_STREAM_ENDPOINTS,
        *METRICS_ENDPOINTS,
        *PROMETHEUS_ENDPOINTS,
        *LOG_ENDPOINTS,
        *REVOCATION_ENDPOINTS,
        *INSPECTION_ENDPOINTS,
        *CLUSTER_ENDPOINTS,
        *DRONE_SOCKET_ENDPOINTS,
        *PROXY_SOCKET_ENDPOINTS,
        *DNS_SOCKET_ENDPOINTS,
    )


def make_app(context: Context) -> web.Application:
    """The controller's application. The documented spellings with the cluster in the path are served too."""
    app = web.Application(
        middlewares=[count_requests, answer_errors, answer_preflight, admit], client_max_size=BODY_LIMIT_BYTES
    )
    app[CONTEXT] = context
    app[INSTRUMENTS] = Instruments(context)
    app.on_response_prepare.append(add_cors_headers)
    endpoints = (*all_endpoints(), _openapi())
    roles: dict[Handler, Role | None] = {endpoint.handle: endpoint.role for endpoint in endpoints}
    roles |= dict.fromkeys(FRONT_PAGE_HANDLERS)
    app[ROLES] = roles
    for endpoint in endpoints:
        for path in endpoint.paths:
            if endpoint.method == "GET":
                app.router.add_get(path, endpoint.handle)
            else:
                app.router.add_route(endpoint.method, path, endpoint.handle)
    if context.settings.demo_command is not None:
        app.add_routes(front_page_routes())
    return app


def _openapi() -> Endpoint:
    document = codec.encode(describe(all_endpoints()))

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    return Endpoint(
        method="GET",
        path="/ctrl/openapi.json",
        handle=serve,
        summary="This API as an OpenAPI 3.1 document",
        role=Role.READ,
        answer=dict,
    )
