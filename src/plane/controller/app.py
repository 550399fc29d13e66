"""The route table of the controller's HTTP API (page 2, "HTTP endpoints of the controller")."""

from __future__ import annotations

from aiohttp import web

from plane.controller.answers import add_cors_headers, answer_errors, answer_preflight, json_answer
from plane.controller.backend_api import handle_status, handle_status_stream, handle_terminate
from plane.controller.connect_api import handle_connect
from plane.controller.context import CONTEXT, Context
from plane.controller.drone_socket import handle_drone_socket
from plane.controller.front_page import front_page_routes
from plane.controller.proxy_socket import handle_proxy_socket
from plane.database import nodes
from plane.database.pool import DatabaseUnavailable
from plane.protocol.connect import ControllerStatus, PublicHealth
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.names import parse_cluster_name
from plane.version import this_version

__all__ = ["make_app"]

# Far above any sensible connect request; large files belong into the image or a mount.
BODY_LIMIT_BYTES = 1024 * 1024


def make_app(context: Context) -> web.Application:
    """The controller's application. The documented spellings with the cluster in the path are served too."""
    app = web.Application(middlewares=[answer_errors, answer_preflight], client_max_size=BODY_LIMIT_BYTES)
    app[CONTEXT] = context
    app.on_response_prepare.append(add_cors_headers)
    app.add_routes(
        [
            web.get("/pub/health", _public_health),
            web.get("/ctrl/status", _controller_status),
            web.post("/ctrl/connect", handle_connect),
            web.get("/ctrl/c/{cluster}/state", _cluster_state),
            web.get("/ctrl/c/{cluster}/drone-socket", handle_drone_socket),
            web.get("/ctrl/c/{cluster}/proxy-socket", handle_proxy_socket),
        ]
    )
    for cluster in ("", "/c/{cluster}"):
        app.add_routes(
            [
                web.get(f"/pub{cluster}/b/{{backend}}/status", handle_status),
                web.get(f"/pub{cluster}/b/{{backend}}/status-stream", handle_status_stream),
                web.post(f"/ctrl{cluster}/b/{{backend}}/{{kind:soft|hard}}-terminate", handle_terminate),
            ]
        )
    if context.settings.demo_command is not None:
        app.add_routes(front_page_routes())
    return app


async def _public_health(request: web.Request) -> web.Response:
    await _require_database(request)
    return json_answer(PublicHealth())


async def _controller_status(request: web.Request) -> web.Response:
    await _require_database(request)
    version = this_version()
    return json_answer(ControllerStatus(version=version.version, hash=version.git_hash))


async def _cluster_state(request: web.Request) -> web.Response:
    cluster = parse_cluster_name(request.match_info["cluster"])
    return json_answer(await nodes.cluster_state(request.app[CONTEXT].db, cluster))


async def _require_database(request: web.Request) -> None:
    try:
        await nodes.answers(request.app[CONTEXT].db)
    except DatabaseUnavailable as error:
        raise ApiFailure(500, ApiErrorKind.OTHER, "Database health check failed") from error
