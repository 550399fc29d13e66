"""What the controller's HTTP API is made of: one `Endpoint` per method and path, with all that is known of it.

Each file of the API has a tuple of them; `plane.controller.app` puts them together and serves them,
`plane.controller.api.openapi` describes them, `plane.controller.api.auth` asks them who may call. To add one: write its
handler, put an `Endpoint` beside it, and its tuple into `app.all_endpoints`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from plane.decisions.access import Role

__all__ = ["EVENT_STREAM", "JSON", "TEXT", "Endpoint", "Handler", "Parameter"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter (``place`` "query") or a header that the endpoint reads; none is ever required."""

    name: str
    place: str
    kind: Any
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method, path: as aiohttp has them; ``{name}`` is a parameter.
        handle: answers it.
        summary: one line for people who read the API's description.
        role: what a caller's API key must allow; None: everybody may call it.
        body: type of the JSON body; None: a body is ignored.
        answer: type of a 200's JSON body; None with ``media`` JSON: the body is ``null``.
        media: of a 200.
        refusals: statuses of `ApiError` that this endpoint has beside those that all have.
        parameters: what it reads from query and headers.
        also: other spellings of the path.
        is_socket: answers 101 (a WebSocket) in place of 200.
    """

    method: str
    path: str
    handle: Handler
    summary: str
    role: Role | None
    body: Any = None
    answer: Any = None
    media: str = JSON
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    also: tuple[str, ...] = ()
    is_socket: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All spellings, the usual one first."""
        return (self.path, *self.also)
