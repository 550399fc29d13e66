"""The table of the controller's HTTP API: one `Endpoint` per method and path.

Each file of the API has a tuple of endpoints. `plane.controller.app` collects and serves them,
`plane.controller.api.openapi` describes them, and `plane.controller.api.auth` enforces their roles. To add an endpoint,
write its handler, put an `Endpoint` beside it, and add the tuple to `app.all_endpoints`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from plane.decisions.access import Role

__all__ = ["EVENT_STREAM", "HTML", "JSON", "TEXT", "Endpoint", "Handler", "Parameter"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"
HTML = "text/html"


@dataclass(frozen=True, slots=True)
class Parameter:
    """An optional query parameter (``place`` "query") or header (``place`` "header") of an endpoint."""

    name: str
    place: str
    kind: Any
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method, path: in aiohttp's notation; ``{name}`` is a parameter.
        handle: the handler.
        summary: one line for the API's description.
        role: required of the caller's API key; None: the endpoint is public.
        body: type of the request's JSON body; None: a body is ignored.
        response: type of the JSON body of a 200; None with ``media`` JSON: the body is ``null``.
        media: media type of a 200.
        refusals: statuses of `ApiError` beside those that all endpoints have.
        parameters: that are read from query and headers.
        aliases: other spellings of the path.
        is_socket: responds with 101 (a WebSocket) in place of 200.
    """

    method: str
    path: str
    handle: Handler
    summary: str
    role: Role | None
    body: Any = None
    response: Any = None
    media: str = JSON
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    aliases: tuple[str, ...] = ()
    is_socket: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All spellings, the canonical one first."""
        return (self.path, *self.aliases)
