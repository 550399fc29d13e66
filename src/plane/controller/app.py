"""The controller's application: all endpoints of the HTTP API, and the middlewares of every request.

The endpoints are described in ``docs/reference/protocol/control-api.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from aiohttp import web

from plane.controller.api.auth import ROLES, admit
from plane.controller.api.backends import BACKEND_ENDPOINTS
from plane.controller.api.cluster import CLUSTER_ENDPOINTS
from plane.controller.api.connect import CONNECT_ENDPOINTS
from plane.controller.api.endpoints import Endpoint
from plane.controller.api.event_feed import EVENT_FEED_ENDPOINTS
from plane.controller.api.health import HEALTH_ENDPOINTS
from plane.controller.api.inspection import INSPECTION_ENDPOINTS
from plane.controller.api.logs import LOG_ENDPOINTS
from plane.controller.api.metrics import METRICS_ENDPOINTS
from plane.controller.api.openapi import describe
from plane.controller.api.prometheus import INSTRUMENTS, PROMETHEUS_ENDPOINTS, Instruments, count_requests
from plane.controller.api.request_bodies import BODY_READER, BodyReader
from plane.controller.api.responses import (
    ERROR_RESPONSES,
    ErrorResponses,
    add_cors_headers,
    handle_errors,
    handle_preflight,
)
from plane.controller.api.revocation import REVOCATION_ENDPOINTS
from plane.controller.api.status_entries import STATUS_ENTRIES, StatusEntries
from plane.controller.api.status_stream import STATUS_STREAM_ENDPOINTS
from plane.controller.api.webhooks import WEBHOOK_ENDPOINTS
from plane.controller.console.routes import Console
from plane.controller.context import CONTEXT, Context
from plane.controller.nodes.dns import DNS_SOCKET_ENDPOINTS
from plane.controller.nodes.drone import DRONE_SOCKET_ENDPOINTS
from plane.controller.nodes.proxy import PROXY_SOCKET_ENDPOINTS
from plane.decisions.access import Role
from plane.protocol import codec

__all__ = ["all_endpoints", "make_app"]

# Far above any sensible connect request; large files belong in the image or in a mount.
MAX_BODY_BYTES = 1024 * 1024


def all_endpoints() -> tuple[Endpoint, ...]:
    """Return every endpoint of the HTTP API except its own description."""
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
        *EVENT_FEED_ENDPOINTS,
        *WEBHOOK_ENDPOINTS,
        *DRONE_SOCKET_ENDPOINTS,
        *PROXY_SOCKET_ENDPOINTS,
        *DNS_SOCKET_ENDPOINTS,
    )


def make_app(
    context: Context, console: Console, errors: ErrorResponses, additional: Sequence[Endpoint] = ()
) -> web.Application:
    """Return the controller's application.

    Args:
        context: passed to all endpoints.
        console: served beside the API.
        errors: turns the exceptions of handlers into responses.
        additional: endpoints that are served but are not part of the API and its description.
    """
    app = web.Application(
        middlewares=[count_requests, handle_errors, handle_preflight, admit], client_max_size=MAX_BODY_BYTES
    )
    app[CONTEXT] = context
    app[INSTRUMENTS] = Instruments(context)
    app[ERROR_RESPONSES] = errors
    limits = context.settings.limits
    app[BODY_READER] = BodyReader(limits.body_s, limits.incomplete_body_bytes)
    app[STATUS_ENTRIES] = StatusEntries()
    app.on_response_prepare.append(add_cors_headers)
    endpoints = (*all_endpoints(), _openapi(), *additional)
    app[ROLES] = {endpoint.handle: endpoint.role for endpoint in endpoints}
    for endpoint in endpoints:
        for path in endpoint.paths:
            if endpoint.method == "GET":
                app.router.add_get(path, endpoint.handle)
            else:
                app.router.add_route(endpoint.method, path, endpoint.handle)
    console.add_to(app)
    return app


def _openapi() -> Endpoint:
    # Made for the first request, so that the controller starts sooner.
    @functools.cache
    def document() -> bytes:
        return codec.encode(describe(all_endpoints()))

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=document(), content_type="application/json")

    return Endpoint(
        method="GET",
        path="/ctrl/openapi.json",
        handle=serve,
        summary="This API as an OpenAPI 3.1 document",
        role=Role.READ,
        response=dict,
    )
