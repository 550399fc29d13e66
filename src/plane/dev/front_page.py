"""The front page of `plane dev`: a field for a key, and a button that opens the demo for it.

`front_page_endpoints` are served by the controller of `plane dev` beside its API; other controllers have no front page.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import msgspec
from aiohttp import web

from plane.controller.api.connect import connect
from plane.controller.api.endpoints import HTML, Endpoint
from plane.controller.api.responses import json_response, read_json
from plane.controller.context import CONTEXT
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig

__all__ = ["front_page_endpoints"]

# The demo survives its last tab for a while, so that a reload finds its state.
DEMO_IDLE_SECONDS = 30


class OpenRequest(msgspec.Struct, frozen=True):
    """Body of ``POST /dev/open``."""

    key: str


class OpenResponse(msgspec.Struct, frozen=True):
    """The URL of the opened demo."""

    url: str


def front_page_endpoints(demo: Sequence[str]) -> tuple[Endpoint, ...]:
    """Return the endpoints of the page and its button, which opens backends that run the command ``demo``.

    They need no API key, since a person who opens the page in a browser has none.
    """

    async def open_demo(request: web.Request) -> web.Response:
        if "Origin" not in request.headers:
            # Without an API key only the page itself may call this; `controller.api.auth` has compared its origin.
            raise ApiFailure(403, ApiErrorKind.OTHER, "only the front page may call this; programs call /ctrl/connect")
        body = await read_json(request, OpenRequest)
        response = await connect(
            request.app[CONTEXT],
            ConnectRequest(
                key=KeyConfig(name=body.key, namespace="demo"),
                spawn_config=SpawnConfig(executable={"command": list(demo)}, max_idle_seconds=DEMO_IDLE_SECONDS),
            ),
        )
        return json_response(OpenResponse(url=response.url))

    return (
        Endpoint(method="GET", path="/", handle=_page, summary="The front page", role=None, media=HTML),
        Endpoint(
            method="POST",
            path="/dev/open",
            handle=open_demo,
            summary="Open the demo for a key",
            role=None,
            body=OpenRequest,
            response=OpenResponse,
        ),
    )


async def _page(_: web.Request) -> web.Response:
    page = resources.files(__package__).joinpath("front_page.html").read_text()
    # In a frame, another page could trick the visitor into clicking the button.
    headers = {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}
    return web.Response(text=page, content_type=HTML, headers=headers)
