"""The front page of `plane dev`: a field for a key, and a button that opens the demo for it.

Not part of a controller that is started by itself.
"""

from __future__ import annotations

from importlib import resources

import msgspec
from aiohttp import web

from plane.controller.answers import json_answer, json_body
from plane.controller.connect_api import connect
from plane.controller.context import CONTEXT
from plane.protocol.connect import ConnectRequest
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig

__all__ = ["front_page_routes"]

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
    return web.Response(text=page, content_type="text/html")


async def _open(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
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
