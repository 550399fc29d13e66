"""The front page of `plane dev`: a field for a key, and a button that opens the demo for it.

Not part of a controller that is started by itself.
"""

from __future__ import annotations

from importlib import resources

import msgspec
from aiohttp import web

from plane.controller.api.connect import connect
from plane.controller.api.responses import json_answer, json_body
from plane.controller.context import CONTEXT
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig

__all__ = ["FRONT_PAGE_HANDLERS", "front_page_routes"]

# The demo stays for a while when its last tab is closed, so that a reload finds it as it was.
DEMO_IDLE_SECONDS = 30


class _OpenRequest(msgspec.Struct, frozen=True):
    key: str


class _Opened(msgspec.Struct, frozen=True):
    url: str


def front_page_routes() -> list[web.RouteDef]:
    """``/`` and what its button calls."""
    return [web.get("/", _page), web.post("/dev/open", _open)]


async def _page(request: web.Request) -> web.Response:
    page = resources.files(__package__).joinpath("front_page.html").read_text()
    # In a frame, another page could make the visitor click its button.
    headers = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}
    return web.Response(text=page, content_type="text/html", headers=headers)


async def _open(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    if "Origin" not in request.headers:
        # It needs no API key since only the page calls it, whose origin `auth` has compared.
        raise ApiFailure(403, ApiErrorKind.OTHER, "only the front page may call this; programs call /ctrl/connect")
    key = (await json_body(request, _OpenRequest)).key
    answer = await connect(
        context,
        ConnectRequest(
            key=KeyConfig(name=key, namespace="demo"),
            spawn_config=SpawnConfig(
                executable={"command": list(context.settings.demo_command or ())},
                max_idle_seconds=DEMO_IDLE_SECONDS,
            ),
        ),
    )
    return json_answer(_Opened(url=answer.url))


# They need no API key: a person who opens the page in a browser has none.
FRONT_PAGE_HANDLERS = (_page, _open)
